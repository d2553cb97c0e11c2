"""Images of more than 8 bits for a page that shows a window of their values, as radiologists choose it.

A browser draws pictures with 8 bits. So the page gets the values themselves, 16 bits each, and makes pictures of them.
"""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.bit_depth import FLOAT_BITS
from freqgan.model.settings import ModelSettings
from freqgan.pixels import from_pixels, to_pixels
from launch.drawing.playing import GAP, GRID_SIDE, clip_columns

WHITE = 65535
STILL_SIDE = 512
"""Pixels of a side of a grid of images; those of clips have GRID_SIDE."""


MIDDLE = (0.01, 0.99)
"""Shares of all values that are below the ends of a window which fits them."""


class ValueScale(NamedTuple):
    """The values of 0 and of 65535 of what a page gets."""

    least: float
    greatest: float

    def fitted(self, images: Tensor, settings: ModelSettings) -> ValueScale:
        """Return the ends of the window that holds all but the least and greatest hundredth of the values of images.

        Images are (B, T C, H, W), stored or in [-1, 1]; the channels are those that are shown.
        """
        values = np.sort(_shown(images, settings), axis=None)
        low, high = (float(values[round(share * (values.size - 1))]) for share in MIDDLE)
        span = (self.greatest - self.least) / WHITE
        return ValueScale(self.least + span * low, self.least + span * max(high, low + 1))


class WindowedGrid(NamedTuple):
    """A grid of images as the values that a page draws it from.

    Attributes:
        width: of the grid in pixels.
        height: likewise.
        frames: of which each is a grid.
        channels: that are shown, 1 or 3.
        data: base64 of zlib's deflate of uint16, little-endian, (frames, channels, height, width).

    """

    width: int
    height: int
    frames: int
    channels: int
    data: str


def value_scale(settings: ModelSettings) -> ValueScale:
    """Return which values the images of the model have; those of 16 bits are whole numbers."""
    if settings.bit_depth == FLOAT_BITS and settings.value_range is not None:
        return ValueScale(*settings.value_range)
    return ValueScale(0.0, float(WHITE))


def windowed_grid(images: Tensor, settings: ModelSettings) -> WindowedGrid:
    """Return the grid of the first of images (B, T C, H, W), stored or in [-1, 1], large ones reduced."""
    columns = round(len(images) ** 0.5) if settings.frames == 1 else clip_columns(settings)
    most = STILL_SIDE if settings.frames == 1 else GRID_SIDE
    shown = _shown(images[: columns * columns], settings)
    grid = _reduced(_tiled(shown, columns), -(-max(settings.size) * columns // most))
    data = base64.b64encode(zlib.compress(grid.astype("<u2").tobytes(), 9)).decode()
    return WindowedGrid(grid.shape[3], grid.shape[2], grid.shape[0], grid.shape[1], data)


def _shown(images: Tensor, settings: ModelSettings) -> NDArray[np.uint16]:
    """Return the channels (B, T, c, H, W) that people see of images (B, T C, H, W), stored or in [-1, 1]."""
    kept = images.cpu()
    values = to_pixels(kept if kept.dtype == torch.float32 else from_pixels(kept), 16).numpy()
    shape = (len(values), settings.frames, settings.channels, *settings.size)
    shown: NDArray[np.uint16] = values.reshape(shape)[:, :, list(settings.display)]
    return shown


def _tiled(images: NDArray[np.uint16], columns: int) -> NDArray[np.uint16]:
    """Return (T, c, h', w'), a grid of images (B, T, c, h, w), row by row, with white between them."""
    count, frames, channels, height, width = images.shape
    rows, tall, wide = -(-count // columns), height + GAP, width + GAP
    grid = np.full((frames, channels, rows * tall - GAP, columns * wide - GAP), WHITE, np.uint16)
    for number, image in enumerate(images):
        top, left = tall * (number // columns), wide * (number % columns)
        grid[:, :, top : top + height, left : left + width] = image
    return grid


def _reduced(grid: NDArray[np.uint16], factor: int) -> NDArray[np.uint16]:
    """Return the means of squares of ``factor`` pixels of (T, c, h, w); rows and columns beyond are cut off."""
    if factor <= 1:
        return grid
    frames, channels, height, width = grid.shape
    rows, columns = height // factor, width // factor
    cut = grid[:, :, : rows * factor, : columns * factor].reshape(frames, channels, rows, factor, columns, factor)
    means: NDArray[np.float64] = cut.mean(axis=(3, 5))
    return means.round().astype(np.uint16)
