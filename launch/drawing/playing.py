"""Grids of clips whose frames follow each other: as one tall picture for pages, and as an animated WebP."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.formats.animations import encode_animation
from cluster.imaging.image_writing import USUAL_FPS
from cluster.imaging.shown_images import shown_frames
from freqgan.model.settings import ModelSettings
from freqgan.sizes import Size
from launch.drawing.grids import tile

MOST_CLIPS = 16
GRID_SIDE = 256
"""Pixels of a side of a grid that plays: 16 clips of 64 pixels, 4 of 128."""
GAP = 1
MOST_ROWS = 8192
"""Of all frames of a grid below each other: browsers show no pictures that are much taller."""


class PlayingGrid(NamedTuple):
    """A grid of clips as a picture of all its frames below each other, the first on top."""

    picture: Image.Image
    frames: int

    @property
    def size(self) -> Size:
        """Height and width of one frame of the grid."""
        return self.picture.height // self.frames, self.picture.width


def clip_columns(settings: ModelSettings) -> int:
    """Return the columns, and rows, of a grid that plays: fewer of large clips, and of long ones."""
    side = min(GRID_SIDE, MOST_ROWS // settings.frames)
    return max(1, min(int(MOST_CLIPS**0.5), side // max(settings.size)))


def clip_count(settings: ModelSettings) -> int:
    """Return how many clips a grid that plays shows."""
    return clip_columns(settings) ** 2


def playing_grid(images: Tensor, settings: ModelSettings) -> PlayingGrid:
    """Return a grid of the first of clips (B, T C, H, W), stored or in [-1, 1]."""
    frames = _grids(images, settings)
    return PlayingGrid(Image.fromarray(frames.reshape(-1, *frames.shape[2:])), settings.frames)


def middle_grid(images: Tensor, settings: ModelSettings) -> Image.Image:
    """Return the frame in the middle of :func:`playing_grid` of clips (B, T C, H, W)."""
    return Image.fromarray(_grids(images, settings)[settings.frames // 2])


def animated_grid(images: Tensor, settings: ModelSettings, fps: float = USUAL_FPS) -> bytes:
    """Return the animated WebP of :func:`playing_grid` of clips (B, T C, H, W)."""
    return encode_animation(_grids(images, settings), fps, "webp")


def encode_webp(picture: Image.Image) -> bytes:
    """Return the picture as a WebP that loses nothing, two thirds of the bytes of a PNG; it has 16383 pixels a side."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=4)
    return buffer.getvalue()


def _grids(images: Tensor, settings: ModelSettings) -> NDArray[np.uint8]:
    """Return the grid of every frame, (T, h, w, 3)."""
    columns = clip_columns(settings)
    clips: Pixels = shown_frames(images[: columns * columns], settings)
    factor = -(-max(settings.size) * columns // GRID_SIDE)
    grids = (tile(clips[:, number], columns, gap=GAP) for number in range(settings.frames))
    return np.stack([np.asarray(grid.reduce(factor) if factor > 1 else grid) for grid in grids])
