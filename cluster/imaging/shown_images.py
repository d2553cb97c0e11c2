"""What people see of images that no screen shows as they are: of clips frames, of many channels one or three."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cluster.data.decoding import Pixels
from freqgan.model.clips import apart
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_eight_bits


def shown_frames(images: Tensor, settings: ModelSettings) -> Pixels:
    """Return all frames of images (B, T C, H, W), stored or in [-1, 1], as uint8 (B, T, c, H, W) with c 1 or 3."""
    return _eight_bits(apart(images, settings.frames)[:, :, list(settings.display)])


def shown_images(images: Tensor, settings: ModelSettings) -> Pixels:
    """Return images (B, T C, H, W), stored or in [-1, 1], as uint8 (B, c, H, W): of clips the frame in the middle."""
    frames = apart(images, settings.frames)
    return _eight_bits(frames[:, settings.frames // 2, list(settings.display)])


def film_strips(images: Tensor, settings: ModelSettings, most: int = 8) -> Pixels:
    """Return clips (B, T C, H, W) as uint8 (B, c, H, n W): up to ``most`` frames of each, evenly chosen."""
    frames = shown_frames(images, settings)
    chosen = np.linspace(0, settings.frames - 1, min(most, settings.frames)).round().astype(int)
    batch, _, channels, height, width = frames.shape
    beside = frames[:, chosen].transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(beside.reshape(batch, channels, height, len(chosen) * width))


def shown_band(x: Tensor, coefficients: int, settings: ModelSettings) -> Tensor:
    """Return what is shown of sub-images (B, n C, h, w), (B, c, h, w): the middle one of n coefficients."""
    return apart(x, coefficients)[:, coefficients // 2, list(settings.display)]


def _eight_bits(x: Tensor) -> Pixels:
    eight: Pixels = to_eight_bits(x).cpu().numpy()
    return eight
