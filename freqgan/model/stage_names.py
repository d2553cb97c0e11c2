"""Names of the stages of a model: its GANs' own, and that of the image stage. They are part of what is stored."""

from __future__ import annotations

from freqgan.model.plan import BandPlan

IMAGE_STAGE = "image"


def stage_names(plan: BandPlan) -> list[str]:
    """Return all stages in the order of the chain: the GANs, then the image stage."""
    return [gan.name for gan in plan.gans] + [IMAGE_STAGE]
