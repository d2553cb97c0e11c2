"""Images that a model is to enlarge: small ones as they are, large ones reduced to the low band of a level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.data.image_files import fitted_frames, is_smaller, stored_frames
from cluster.data.settings import MAX_PIXELS, DataSettings
from freqgan.errors import InputError
from freqgan.generation.editing import low_band
from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.model.clips import averaged_frames
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
    policy = replace(DataSettings().model_policy(settings), max_pixels=max_pixels)
    frames = stored_frames(data, name, policy)
    small, full = synthesiser.chain.band_size(level), settings.size
    _check_frames(frames, name, settings.frames)
    if frames.shape[1:3] == small:
        own = replace(policy, size=small)
        return LowImage(image_tensor(fitted_frames(frames, own)), None)
    if is_smaller(frames[0], full):
        raise InputError(
            f"{name} has {width_by_height(frames.shape[1:3])} pixels; give {width_by_height(small)} to be enlarged "
            f"from level {level}, or at least {width_by_height(full)} to be reduced and compared"
        )
    truth = image_tensor(fitted_frames(frames, policy))
    return LowImage(low_band(synthesiser, truth, level), truth)


def read_slow_clip(
    data: bytes, name: str, synthesiser: Synthesiser, halvings: int, max_pixels: int = MAX_PIXELS
) -> LowImage:
    """Return a clip whose changes are to be made up: of a 2^halvings-th of the frames, or a whole one averaged to it.

    Raises:
        InputError: it is no clip, is smaller than the model's frames, or has fewer frames than that.

    """
    settings = synthesiser.settings
    check_halvings(settings, halvings)
    policy = replace(DataSettings().model_policy(settings), max_pixels=max_pixels)
    frames, wanted = stored_frames(data, name, policy), settings.frames >> halvings
    _check_frames(frames, name, wanted)
    if is_smaller(frames[0], settings.size):
        raise InputError(
            f"{name} has {width_by_height(frames.shape[1:3])} pixels, and the model's frames "
            f"{width_by_height(settings.size)}: give one that is at least as large"
        )
    if len(frames) < settings.frames:
        return LowImage(image_tensor(fitted_frames(frames, replace(policy, frames=wanted))), None)
    truth = image_tensor(fitted_frames(frames, policy))
    return LowImage(averaged_frames(truth, settings.frames, 2**halvings), truth)


def check_halvings(settings: ModelSettings, halvings: int) -> None:
    """Raise InputError where a model of ``settings`` cannot make so many times more frames."""
    if settings.frames == 1:
        raise InputError("--in time: the model makes images, which have no frames; leave it out")
    if not 1 <= halvings <= settings.time_depth:
        raise InputError(
            f"--from-level {halvings} with --in time: the model halves time {settings.time_depth} times; give 1 to "
            f"{settings.time_depth}"
        )


def _check_frames(frames: Pixels, name: str, wanted: int) -> None:
    if len(frames) < wanted:
        raise InputError(f"{name} has {len(frames)} frames, and {wanted} are needed: give a longer clip")


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
