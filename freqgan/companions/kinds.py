"""Which class is the companion of a kind."""

from __future__ import annotations

from freqgan.companions.adversarial import DcganGenerator, residual_generator
from freqgan.companions.autoregressive import PixelCnn
from freqgan.companions.diffusion import Diffusion
from freqgan.companions.flow_matching import FlowMatchingNetwork
from freqgan.companions.glow import Glow
from freqgan.companions.imported import import_companion
from freqgan.companions.protocol import Companion
from freqgan.companions.vae import VariationalAutoencoder
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.seeds import seeded


def build_companion(settings: ModelSettings) -> Companion:
    """Return the companion of ``settings``, on the CPU, with weights drawn from the run's seed.

    Raises:
        InputError: it is a class that cannot be imported, or lacks something.

    """
    with seeded(settings.seed, "generator", IMAGE_STAGE):
        return _build(settings, settings.image_stage.companion)


def _build(settings: ModelSettings, kind: str) -> Companion:
    match kind:
        case "attention":
            return residual_generator(settings, attention=settings.image_stage.attention)
        case "resnet":
            return residual_generator(settings, attention=False)
        case "dcgan":
            return DcganGenerator(settings)
        case "vae":
            return VariationalAutoencoder(settings)
        case "diffusion":
            return Diffusion(settings)
        case "flow_matching":
            return FlowMatchingNetwork(settings)
        case "flow":
            return Glow(settings)
        case "autoregressive":
            return PixelCnn(settings)
    return import_companion(kind, settings)
