"""The settings of the jointly trained system of three generators, ``system: fusion``; they need no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqgan.errors import InputError
from freqgan.setting_group import SettingGroup

SystemKind = Literal["bands", "fusion"]


class FusionSettings(SettingGroup):
    """What G_l and G_h get of the noise, and how lambda, their share of the image, is trained (`system=fusion`).

    The sizes of G_o and D_o are those of `image_stage`, of G_l and D_l those of the coarsest band, of G_h and D_h those
    of the other bands.
    """

    split: int | None = Field(
        None,
        ge=1,
        description="k: G_l gets the first k numbers of the noise vector and G_h the others, G_o all of them. Half of "
        "`noise.dimensions` where not given.",
    )
    lambda_learning_rate: float = Field(
        1e-3, ge=0, description="Adam's learning rate of lambda itself at the start; it falls as that of the networks."
    )
    auxiliary_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of each batch on which D_l and D_h judge what G_l and G_h generate itself, in place of the "
        "bands of the blended image. It is what G_l and G_h learn by while lambda is 0.",
    )
    fade_begin: float = Field(0.2, ge=0, le=1, description="The lambda up to which `auxiliary_share` holds.")
    fade_end: float = Field(
        0.4, gt=0, description="The lambda from which on no sample is judged so; the share falls linearly before it."
    )

    def low_dimensions(self, dimensions: int) -> int:
        """Return k, the numbers of a noise vector of ``dimensions`` that G_l gets.

        InputError where it leaves none to either of the generators.
        """
        split = dimensions // 2 if self.split is None else self.split
        if not 0 < split < dimensions:
            raise InputError(
                f"fusion.split: {split} of noise.dimensions={dimensions} numbers for G_l leaves {dimensions - split} "
                f"to G_h, and both need one at least: give a number from 1 to {dimensions - 1}"
                if dimensions > 1
                else f"noise.dimensions: {dimensions} cannot be split between G_l and G_h; set it to 2 or more"
            )
        return split
