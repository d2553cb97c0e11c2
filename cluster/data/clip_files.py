"""Files of clips that a command works on: animations, videos and arrays, as the frames of a model."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import chain
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cluster.data.decoding import NPY_BEGINNING, Pixels, in_range
from cluster.data.png_decoding import to_narrow, to_sixteen_bits
from cluster.data.png_samples import luma
from cluster.data.settings import ImagePolicy
from cluster.formats.animations import read_animation
from cluster.formats.array_files import frames_of, read_npy
from cluster.formats.clips import TimedFrame
from cluster.formats.video import read_video
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError

MOST_FRAMES = 4096
"""Of a file; a command works on clips of at most 64."""


def read_clip(data: bytes, name: str, policy: ImagePolicy) -> Pixels:
    """Return all frames (T, H, W, C) of a file, of the channels, bits and range of ``policy``, in their own size.

    A frame of an animation or video that is shown for longer than the shortest one is as many frames.

    Raises:
        InputError: it is no animation (GIF, APNG, WebP), no video and no .npy of (T, H, W[, C]), or is damaged; it has
            other channels, values outside of the range, or more than 4,096 frames.

    """
    if data[:6] == NPY_BEGINNING:
        frames = frames_of(read_npy(io.BytesIO(data), name), name)
        return _in_depth(frames, name, policy)
    is_animation = data[:3] == b"GIF" or data[:4] == b"\x89PNG" or data[8:12] == b"WEBP"
    timed = read_animation(data, name) if is_animation else read_video(io.BytesIO(data), name)
    frames = np.stack(list(_repeated(list(timed), name)))
    if policy.channels == 1:
        frames = luma(cast("NDArray[np.uint8]", frames)).astype(np.uint8)[..., None] if frames.shape[3] == 3 else frames
    elif frames.shape[3] == 1:
        frames = frames.repeat(policy.channels, axis=3)
    return _in_depth(frames, name, policy)


def _repeated(timed: list[TimedFrame], name: str) -> Iterable[Pixels]:
    """Return the frames, long ones repeated: who writes animations joins frames that are alike."""
    shortest = min(frame.end - frame.start for frame in timed)
    counts = [max(1, round((frame.end - frame.start) / shortest)) if shortest > 0 else 1 for frame in timed]
    if sum(counts) > MOST_FRAMES:
        raise InputError(f"{name} has {sum(counts)} frames, more than the {MOST_FRAMES} allowed: cut it")
    return chain.from_iterable([frame.pixels] * count for frame, count in zip(timed, counts, strict=True))


def _in_depth(frames: Pixels, name: str, policy: ImagePolicy) -> Pixels:
    if frames.shape[3] != policy.channels:
        raise InputError(
            f"{name} has {frames.shape[3]} channels, and the model's clips {policy.channels}: give an array (.npy) of "
            "(frames, height, width, channels) with as many"
        )
    if policy.bit_depth == FLOAT_BITS:
        return np.stack([in_range(frame, name, policy) for frame in frames])
    if frames.dtype == np.float32:
        raise InputError(f"{name} has floating-point numbers, and the model whole ones: give uint8 or uint16")
    if policy.bit_depth == 16 and frames.dtype == np.uint8:
        return to_sixteen_bits(frames)
    return frames if policy.bit_depth == 16 or frames.dtype == np.uint8 else to_narrow(frames)
