"""Names of the stages of a model: its GANs' own, and that of the image stage. They are part of what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freqgan.model.settings import ModelSettings

IMAGE_STAGE = "image"
FUSION_STAGE = "fusion"
"""The one stage of the jointly trained system."""


def stage_names(settings: ModelSettings) -> list[str]:
    """Return all stages in the order of the chain: the experts, then the image stage, if it is trained.

    Where ``settings.only`` names some, it is these. The jointly trained system is one stage.
    """
    if settings.system == "fusion":
        return [FUSION_STAGE]
    names = [gan.name for gan in settings.band_plan().gans]
    names = [*names, IMAGE_STAGE] if settings.image_stage.enabled else names
    return [name for name in names if not settings.only or name in settings.only]
