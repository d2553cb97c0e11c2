"""Tiny companions of every kind, and their stage, that tests share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from freqgan.companions.kinds import build_companion
from freqgan.companions.protocol import Companion
from freqgan.model.settings import ModelSettings
from freqgan.training.companion_stage import CompanionStage, build_image_stage
from freqgan.training.image_stage import ImageStage
from tests.support.models import TINY, chain_of, pictures, tiny_settings

SMALL: dict[str, Any] = {
    "unet": {"width": 8, "coarse_width": 8, "heads": 2},
    "vae": {"latent": 8},
    "diffusion": {"evaluations": 2, "steps": 50},
    "flow_matching": {"evaluations": 2},
    "autoregressive": {"width": 8, "layers": 1, "mixtures": 2},
    "glow": {"levels": 2, "steps": 2, "width": 8},
    "companion_optimiser": {"warmup_images": 0},
}
"""Sizes of a few thousand weights, for whichever companion."""
ADVERSARIAL_KINDS = ("dcgan", "resnet")
OWN_LOSS_KINDS = ("vae", "diffusion", "autoregressive", "flow", "flow_matching")
ONE_PASS = ("vae", "flow", *ADVERSARIAL_KINDS)
LINEAR = "tests.support.companions:LinearCompanion"


def stage_values(kind: str, **changes: Any) -> dict[str, Any]:
    """The settings of the image stage with a tiny companion; its pool, if it needs one, is of 8 samples and 2 steps."""
    pool = {} if kind in ONE_PASS or kind == LINEAR else {"pool": {"every": 2, "size": 8}}
    return {"companion": kind, "generator": TINY, "discriminator": TINY, **SMALL, **pool, **changes}


def companion_settings(kind: str, stage: dict[str, Any] | None = None, **changes: Any) -> ModelSettings:
    """Tiny settings with a companion; ``stage`` changes the image stage's. Pixel by pixel 8x8 are enough."""
    sides = {"image_size": 8} if kind == "autoregressive" else {}
    return tiny_settings(image_stage=stage_values(kind, **(stage or {})), **(sides | changes))


def companion_of(kind: str, stage: dict[str, Any] | None = None, **changes: Any) -> Companion:
    return build_companion(companion_settings(kind, stage, **changes))


def stage_of(settings: ModelSettings) -> ImageStage | CompanionStage:
    return build_image_stage(chain_of(settings))


def stage_step(stage: ImageStage | CompanionStage, step: int) -> dict[str, float]:
    """Trains on the pictures of ``step``, the bands being noise, and returns the metrics."""
    settings, chain = stage.chain.settings, stage.chain
    rng = torch.Generator().manual_seed(step)
    outputs: dict[str, Tensor] = {
        gan.name: torch.randn(settings.batch, settings.channels, *chain.gan_size(gan), generator=rng).to(chain.device)
        for gan in chain.plan.gans
    }
    labels = torch.arange(settings.batch) % max(1, settings.classes)
    return stage.step(step, pictures(settings, seed=100 + step), labels, outputs).metrics


class LinearCompanion(Companion):
    """Images are a linear map of noise: the smallest class that could be a user's own."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.shape = (settings.channels, *settings.size)
        self.numbers = 5
        self.map = torch.nn.Linear(5, math.prod(self.shape))

    def sample(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.map(noise).view(-1, *self.shape)
        return out

    def loss(self, images: Tensor, labels: Tensor | None, rng: torch.Generator, progress: float) -> Any:
        from freqgan.companions.protocol import CompanionLoss

        mean = self.map.bias.view(1, *self.shape)
        value = (mean - images).square().mean()
        return CompanionLoss(value, {"half": value.detach() / 2})


def fitted(kind: str, steps: int, stage: dict[str, Any] | None = None, **changes: Any) -> tuple[Companion, list[float]]:
    """A companion alone after ``steps`` steps on the same 16 pictures, as trained, and its losses."""
    stage = {"companion_optimiser": {"warmup_images": 0, "learning_rate": 5e-3}} | (stage or {})
    settings = companion_settings(kind, stage, batch=16, images=16 * steps, plan={"bands": "none"}, **changes)
    own = stage_of(settings)
    assert isinstance(own, CompanionStage)
    images = pictures(settings)
    labels = torch.arange(16) % max(1, settings.classes)
    losses = [own.step(step, images, labels, {}).metrics["companion_loss"] for step in range(steps)]
    return own.companion_trainer.network.eval().requires_grad_(False), losses


def real_images(settings: ModelSettings) -> Tensor:
    """The pictures that :func:`fitted` trains on, in [-1, 1]."""
    return pictures(settings, 16).float() / 127.5 - 1
