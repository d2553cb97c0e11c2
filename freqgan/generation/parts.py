"""The images of a pass that a person may want: the blend, or those of one of its two halves alone."""

from __future__ import annotations

from torch import Tensor

from freqgan.errors import InputError, nearest
from freqgan.generation.synthesiser import Generated
from freqgan.model.settings import ModelSettings

PARTS = ("image", "chain", "companion")
"""The blended image, the image of the chain of bands alone, and the companion's, the other generator's, alone."""


def part_of(generated: Generated, part: str) -> Tensor:
    """Return the images (B, C, N, N) of one of :data:`PARTS`."""
    return {"image": generated.images, "chain": generated.frequency, "companion": generated.conventional}[part]


def check_part(settings: ModelSettings, part: str) -> None:
    """Raise InputError where a model of ``settings`` has no such part."""
    if part not in PARTS:
        raise InputError(
            f"--part {part}: no part is called so{nearest(part, list(PARTS))}; there are {', '.join(PARTS)}"
        )
    if part == "companion" and not settings.image_stage.enabled:
        raise InputError(
            "--part companion: the model has no image stage, and with it no companion; leave --part out: its images "
            "are those of the chain"
        )
    has_bands = settings.system == "fusion" or settings.band_plan().gans
    if part == "chain" and not has_bands:
        raise InputError("--part chain: the model has no bands, all of it is its companion; leave --part out")
