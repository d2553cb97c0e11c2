"""Clips of one to three squares that move over a background, each at a speed of its own; and what may be wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def moving_squares(count: int, frames: int = 8, side: int = 32, seed: int = 0) -> Tensor:
    """uint8 (count, frames * 3, side, side): squares of 8 to 12 pixels, up to two pixels a frame either way."""
    rng = np.random.default_rng(seed)
    clips = np.empty((count, frames, 3, side, side), np.uint8)
    ramp = np.linspace(0, 1, side)
    for clip in clips:
        back = 60 + 80 * np.add.outer(ramp * rng.uniform(-1, 1), ramp * rng.uniform(-1, 1))
        squares = [
            (rng.uniform(0, side, 2), rng.uniform(-2, 2, 2), rng.integers(8, 13), rng.uniform(0, 255, 3))
            for _ in range(rng.integers(1, 4))
        ]
        for t, picture in enumerate(clip):
            picture[:] = back.clip(0, 255)
            for place, speed, size, colour in squares:
                top, left = np.round(place + speed * t).astype(int) % side
                picture[:, top : top + size, left : left + size] = colour[:, None, None]
        clip += rng.integers(0, 6, clip.shape, dtype=np.uint8).clip(0, 255 - clip.max())
    return torch.from_numpy(clips).flatten(1, 2)


def _apart(clips: Tensor, frames: int) -> Tensor:
    return clips.reshape(len(clips), frames, -1, *clips.shape[2:])


def frozen(clips: Tensor, frames: int) -> Tensor:
    """Every frame is the first."""
    return _apart(clips, frames)[:, :1].expand(-1, frames, -1, -1, -1).flatten(1, 2)


def shuffled(clips: Tensor, frames: int) -> Tensor:
    """Frames in an order that is drawn for each clip."""
    rng = torch.Generator().manual_seed(0)
    return torch.stack([clip[torch.randperm(frames, generator=rng)] for clip in _apart(clips, frames)]).flatten(1, 2)


def with_changes_of_another(clips: Tensor, frames: int) -> Tensor:
    """The averages of pairs of one clip and the differences of the next."""
    x = _apart(clips, frames).float()
    averages, differences = (x[:, ::2] + x[:, 1::2]) / 2, ((x[:, ::2] - x[:, 1::2]) / 2).roll(1, 0)
    swapped = torch.stack([averages + differences, averages - differences], dim=2).flatten(1, 2)
    return swapped.round().clamp(0, 255).to(torch.uint8).flatten(1, 2)


def blurred(clips: Tensor, frames: int) -> Tensor:
    """Each frame is the mean of itself and the two beside it."""
    x = _apart(clips, frames).float()
    wider = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
    return ((wider[:, :-2] + wider[:, 1:-1] + wider[:, 2:]) / 3).round().to(torch.uint8).flatten(1, 2)


WRONG = {"frozen": frozen, "shuffled": shuffled, "changes of another": with_changes_of_another, "blurred": blurred}
