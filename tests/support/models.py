"""Small models that tests share: settings of a few thousand weights, statistics, a batch of pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.band_statistics import BandMoments, BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.model.step_graph import StageCall, run_step, step_graph
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.tensor_dicts import tensors_of
from freqgan.training.band_gan import BandGan
from freqgan.training.image_stage import ImageStage
from freqgan.training.stage import Feedback

CPU = torch.device("cpu")
TINY = {"width": 8, "coarse_width": 8, "group_width": 4}
TINY_SIZES: dict[str, Any] = {
    "coarse_generator": TINY,
    "coarse_discriminator": TINY,
    "band_generator": TINY,
    "band_discriminator": TINY,
    "image_stage": {"generator": TINY, "discriminator": TINY},
}
FUSION: dict[str, Any] = {"system": "fusion", "loss": {"kind": "hinge"}}
"""The jointly trained system."""


def tiny_settings(**changes: Any) -> ModelSettings:
    """16x16 pictures, one level, batch 4, all networks 8 channels wide."""
    base: dict[str, Any] = {"image_size": 16, "levels": 1, "batch": 4, "images": 400, "noise": {"dimensions": 16}}
    base["feedback"] = {"lag": 1, "discriminator": TINY}
    sizes = TINY_SIZES | {"image_stage": TINY_SIZES["image_stage"] | changes.pop("image_stage", {})}
    return ModelSettings.model_validate(base | sizes | changes)


def pictures(settings: ModelSettings, count: int | None = None, seed: int = 0) -> Tensor:
    """uint8 pictures with smooth structure and some noise."""
    rng = torch.Generator().manual_seed(seed)
    shape = (count or settings.batch, settings.image_channels)
    coarse = torch.rand(*shape, 4, 4, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=settings.size, mode="bilinear")
    noise = torch.rand(*shape, *settings.size, generator=rng)
    return ((0.9 * smooth + 0.1 * noise) * 255).to(torch.uint8)


def packed_targets(settings: ModelSettings, count: int, seed: int = 0) -> Tensor:
    """Targets (B, K) of labels one after the other, numbers of deviation 10 about 5, and a text that names the row."""
    layout, rng = settings.target_layout, torch.Generator().manual_seed(seed)
    targets = 10 * torch.randn(count, layout.width, generator=rng) + 5
    columns = layout.columns
    if "label" in columns:
        targets[:, columns["label"]] = (torch.arange(count) % layout.classes).float()[:, None]
    if "caption" in columns:
        texts = [f"picture {i}".encode().ljust(layout.caption, b"\0")[: layout.caption] for i in range(count)]
        targets[:, columns["caption"]] = torch.tensor([list(text) for text in texts]).float()
    targets[:, columns["shown"]] = 1
    return targets


def targets_of(settings: ModelSettings) -> Tensor:
    """Targets of a batch: labels (B,), or packed (B, K) and the first of them not shown."""
    if not settings.target_layout.packed:
        return torch.arange(settings.batch) % max(1, settings.classes)
    targets = packed_targets(settings, settings.batch)
    targets[0, settings.target_layout.columns["shown"]] = 0
    return targets


def statistics_of(settings: ModelSettings) -> BandStatistics:
    moments = BandMoments()
    pixels = pictures(settings, 64, seed=1).float() / 127.5 - 1
    moments.add(settings.band_transform().analyse(pixels))
    statistics = moments.finish()
    if settings.target_layout.packed:
        statistics = replace(statistics, targets=packed_targets(settings, 32, seed=2))
    return statistics


def chain_of(settings: ModelSettings, device: torch.device = CPU) -> Chain:
    return Chain(settings, statistics_of(settings), device)


class TinyRun:
    """All stages of a model in one process, stepped as every executor steps them."""

    def __init__(
        self, settings: ModelSettings, capture: GraphCapture | None = None, device: torch.device = CPU
    ) -> None:
        self.settings, self.chain = settings, chain_of(settings, device)
        self.gans = [BandGan(self.chain, gan, capture=capture) for gan in self.chain.plan.gans]
        self.image = ImageStage(self.chain, capture)
        self.feedback: dict[int, dict[str, Feedback]] = {}
        self.targets = self.chain.normalised_targets(targets_of(settings))

    def step(self, step: int) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
        images = pictures(self.settings, seed=100 + step)
        gans = {gan.name: gan for gan in self.gans}
        feedback = self.feedback.get(step - self.settings.feedback.lag, {})
        outputs: dict[str, Tensor] = {}
        inputs_of: dict[str, dict[str, Tensor]] = {}
        metrics: dict[str, dict[str, float]] = {}

        def run_call(call: StageCall, inputs: dict[str, Tensor]) -> Tensor | None:
            if call.stage == IMAGE_STAGE:
                judged = self.image.step(step, images, self.targets, inputs)
                metrics[call.stage] = judged.metrics
                self.feedback[step] = {
                    name: Feedback(step, self.targets, inputs_of[name], outputs[name], gradient)
                    for name, gradient in judged.feedback.items()
                }
                return None
            if call.kind == "forward":
                return gans[call.stage].forward(step, self.targets, inputs)
            result = gans[call.stage].step(step, images, self.targets, inputs, feedback.get(call.stage))
            assert result.output is not None
            inputs_of[call.stage], outputs[call.stage], metrics[call.stage] = inputs, result.output, result.metrics
            return result.output

        run_step(step_graph(self.settings), run_call)
        return outputs, metrics

    def states(self) -> dict[str, dict[str, Tensor]]:
        return {stage.name: tensors_of(stage.state_dict()) for stage in self.stages}

    @property
    def stages(self) -> list[BandGan | ImageStage]:
        return [*self.gans, self.image]

    def synthesiser(self) -> Synthesiser:
        return Synthesiser(self.settings, self.chain.statistics, self.states())
