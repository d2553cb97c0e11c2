"""Images that a model is to enlarge: small ones as they are, large ones reduced to the low band of a level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster.data.decoding import Pixels, decode_image, fit_image
from cluster.data.image_files import is_smaller
from cluster.data.settings import MAX_PIXELS, DataSettings
from freqgan.errors import InputError
from freqgan.generation.editing import low_band
from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.model.settings import ModelSettings
from freqgan.pixels import from_pixels
from freqgan.sizes import width_by_height


@dataclass(frozen=True)
class LowImage:
    """One input: its low band (1, C, h, h), and the whole image (1, C, N, N) where there is one, in [-1, 1]."""

    low: Tensor
    truth: Tensor | None


def check_level(settings: ModelSettings, level: int) -> None:
    """Raise InputError where a model of ``settings`` cannot enlarge from ``level``."""
    if not settings.levels:
        raise InputError("the model has no levels (levels=0): it has no low band that an image could be enlarged from")
    if not 1 <= level <= settings.levels:
        raise InputError(f"--from-level {level}: the model has levels 1 (finest) to {settings.levels}")


def read_low_image(
    data: bytes, name: str, synthesiser: Synthesiser, level: int, max_pixels: int = MAX_PIXELS
) -> LowImage:
    """Return what is to be enlarged from ``level``: an image of that size, or a larger one reduced to it.

    Raises:
        InputError: it is no image, has more than ``max_pixels`` pixels, or a size between.

    """
    settings = synthesiser.settings
    pixels = decode_image(data, name, channels=settings.channels, max_pixels=max_pixels, bit_depth=settings.bit_depth)
    small, full = synthesiser.chain.band_size(level), settings.size
    if pixels.shape[:2] == small:
        return LowImage(image_tensor(pixels.transpose(2, 0, 1)), None)
    if is_smaller(pixels, full):
        raise InputError(
            f"{name} has {width_by_height(pixels.shape[:2])} pixels; give {width_by_height(small)} to be enlarged from "
            f"level {level}, or at least {width_by_height(full)} to be reduced and compared"
        )
    policy = DataSettings().model_policy(settings)
    truth = image_tensor(fit_image(pixels, policy))
    return LowImage(low_band(synthesiser, truth, level), truth)


def image_tensor(pixels: Pixels) -> Tensor:
    """Return stored pixels (C, H, W) as an image (1, C, H, W) in [-1, 1]."""
    return from_pixels(torch.from_numpy(np.ascontiguousarray(pixels)))[None]


def detail_draws(synthesiser: Synthesiser, seed: int, count: int, label: int | None) -> Draws:
    """Return the noises of ``count`` images that are enlarged together, all of class ``label`` where one is given."""
    asked = None
    if label is not None:
        parts = TargetParts(labels=torch.full((count,), label))
        asked = targets_for(synthesiser, seed, count, parts)
    return synthesiser.draws(seed, count, asked)
