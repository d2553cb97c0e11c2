"""Clips as tensors (B, T C, H, W): the channels of their frames one after the other."""

from __future__ import annotations

import torch
from torch import Tensor


def apart(clips: Tensor, frames: int) -> Tensor:
    """Return clips (B, T C, H, W) of T = ``frames`` frames as (B, T, C, H, W)."""
    count, channels, *size = clips.shape
    return clips.reshape(count, frames, channels // frames, *size)


def averaged_frames(clips: Tensor, frames: int, count: int) -> Tensor:
    """Return the averages of ``count`` neighbouring frames of ``clips`` (B, T C, H, W): (B, T / count C, H, W)."""
    parts = apart(clips, frames)
    batch, _, *size = parts.shape
    return parts.reshape(batch, frames // count, count, *size).mean(dim=2).flatten(1, 2)


def one_frame_each(clips: Tensor, frames: int) -> Tensor:
    """Return a frame (B, C, H, W) of each of clips (B, T C, H, W): the first of the first, the second of the next."""
    if frames == 1:
        return clips
    rows = torch.arange(len(clips), device=clips.device)
    return apart(clips, frames)[rows, rows % frames]
