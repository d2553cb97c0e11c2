"""Files of clips that a command works on: animations, videos and arrays, as the frames of a model."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cluster.data.decoding import Pixels, check_array, image_format, in_range
from cluster.data.png_decoding import in_depth
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
            other channels, values outside of the range, more than 4,096 frames, or frames that have more pixels
            together than the policy's ``max_pixels``.

    """
    if image_format(data) == "npy":
        frames = frames_of(read_npy(io.BytesIO(data), name), name)
        return _in_depth(frames, name, policy)
    is_animation = data[:3] == b"GIF" or data[:4] == b"\x89PNG" or data[8:12] == b"WEBP"
    timed = read_animation(data, name) if is_animation else read_video(io.BytesIO(data), name)
    frames = np.stack(_repeated(list(_bounded(timed, name, policy.max_pixels)), name))
    if policy.channels == 1:
        frames = luma(cast("NDArray[np.uint8]", frames)).astype(np.uint8)[..., None] if frames.shape[3] == 3 else frames
    elif frames.shape[3] == 1:
        frames = frames.repeat(policy.channels, axis=3)
    return _in_depth(frames, name, policy)


def _bounded(timed: Iterator[TimedFrame], name: str, max_pixels: int) -> Iterator[TimedFrame]:
    """Yield frames as long as they have at most ``max_pixels`` together: a film would not fit into memory."""
    pixels = 0
    for frame in timed:
        pixels += frame.pixels.shape[0] * frame.pixels.shape[1]
        if pixels > max_pixels:
            raise InputError(
                f"the frames of {name} have more than {max_pixels} pixels together: cut out those that are wanted, or "
                "make them smaller"
            )
        yield frame


def _repeated(timed: Sequence[TimedFrame], name: str) -> list[Pixels]:
    """Return the frames, long ones repeated: who writes animations joins frames that are alike."""
    shortest = min(frame.end - frame.start for frame in timed)
    counts = [max(1, round((frame.end - frame.start) / shortest)) if shortest > 0 else 1 for frame in timed]
    if sum(counts) > MOST_FRAMES:
        raise InputError(f"{name} has {sum(counts)} frames, more than the {MOST_FRAMES} allowed: cut it")
    return [frame.pixels for frame, count in zip(timed, counts, strict=True) for _ in range(count)]


def _in_depth(frames: Pixels, name: str, policy: ImagePolicy) -> Pixels:
    check_array(frames[0], name, policy.channels, policy.bit_depth)
    if policy.bit_depth == FLOAT_BITS:
        return in_range(frames, name, policy)
    return in_depth(frames, policy.bit_depth)
