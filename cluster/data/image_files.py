"""Image files that a command works on, read to the size of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cluster.data.clip_files import read_clip
from cluster.data.decoding import Pixels, decode_image, fit_image, in_range
from cluster.data.settings import MAX_PIXELS, DataSettings, ImagePolicy
from cluster.storage.folder import split_object
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError
from freqgan.model.settings import ModelSettings
from freqgan.pixels import from_pixels
from freqgan.sizes import Size, width_by_height


def read_images(urls: Sequence[str], settings: ModelSettings) -> Tensor:
    """Return image files (paths or s3:// URLs) as (B, C, N, N) in [-1, 1], cut and reduced as the model's images are.

    Raises:
        InputError: a file that is no image, or is smaller than the model's images.

    """
    return torch.cat([_read(url, settings) for url in urls])


def _read(url: str, settings: ModelSettings) -> Tensor:
    folder, name = split_object(url)
    return fitted_image(folder.read(name), url, settings)


def fitted_image(data: bytes, name: str, settings: ModelSettings, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return an image (1, C, N, N) in [-1, 1] of the bytes of a file, cut and reduced as the model's images are.

    Raises:
        InputError: it is no image, is smaller than the model's images, or has more than ``max_pixels`` pixels.

    """
    policy = replace(DataSettings().model_policy(settings), max_pixels=max_pixels)
    frames = stored_frames(data, name, policy)
    pixels = frames[0]
    if len(frames) < settings.frames:
        raise InputError(f"{name} has {len(frames)} frames, and the model's clips {settings.frames}: give a longer one")
    if is_smaller(pixels, settings.size):
        raise InputError(
            f"{name} has {width_by_height(pixels.shape[:2])} pixels, and the model's images "
            f"{width_by_height(settings.size)}: give one that is at least as large"
        )
    return from_pixels(torch.from_numpy(fitted_frames(frames, policy)))[None]


def stored_frames(data: bytes, name: str, policy: ImagePolicy) -> Pixels:
    """Return all frames (T, H, W, C) of the bytes of a file, one of an image; errors as of :func:`fitted_image`."""
    if policy.frames > 1:
        return read_clip(data, name, policy)
    pixels = decode_image(
        data, name, channels=policy.channels, max_pixels=policy.max_pixels, bit_depth=policy.bit_depth
    )
    return (in_range(pixels, name, policy) if policy.bit_depth == FLOAT_BITS else pixels)[None]


def fitted_frames(frames: Pixels, policy: ImagePolicy) -> Pixels:
    """Return the frames in the middle of (T, H, W, C), as many as the policy's, fitted by it: (T' C, h, w)."""
    first = (len(frames) - policy.frames) // 2
    chosen = frames[first : first + policy.frames]
    return np.ascontiguousarray(np.concatenate([fit_image(frame, policy) for frame in chosen]))


def is_smaller(pixels: Pixels, size: Size) -> bool:
    """Return whether an image (H, W, C) has too few pixels down or across to be reduced to ``size``."""
    return any(side < least for side, least in zip(pixels.shape[:2], size, strict=True))
