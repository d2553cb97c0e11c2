"""Images and clips of samples, as a model wants them: decoded, brought to its range, cut and resampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.data.decoding import (
    Pixels,
    check_array,
    check_picture,
    decode_image,
    fit_image,
    image_format,
    in_range,
)
from cluster.data.settings import ImagePolicy
from cluster.formats.arrays import decode_npy
from cluster.formats.strips import unstacked
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError, counted
from freqgan.seeds import derive_seed

FRAMES, OFFSET, SLOPE = "frames", "offset", "slope"
"""Fields of the .json of a sample: of strips how many frames they are, of scans what their stored numbers stand for."""


def read_image(
    data: bytes,
    name: str,
    policy: ImagePolicy,
    fields: Mapping[str, Any],
    *seed_parts: int | str,
    into: Pixels | None = None,
) -> Pixels:
    """Return the image of a file (C, h, w), or the clip (T C, h, w), as ``policy`` wants it.

    Args:
        data: the bytes of the file.
        name: of it, for errors.
        policy: size, channels, frames, bits and range.
        fields: of the .json beside it; of those the number of frames, and offset and slope, are read.
        seed_parts: of the crop, and of which of more frames are taken, where the policy has a random one.
        into: memory (h, w, C) that may be used, where the image needs nothing but decoding.

    Raises:
        InputError: as of :func:`~cluster.data.decoding.decode_image`; fewer frames than the policy's, or an image that
            is a strip of frames where the policy wants one image; values outside of its range.

    """
    pixels = decode_image(
        data,
        name,
        channels=policy.channels,
        background=policy.background,
        max_pixels=policy.max_pixels,
        bit_depth=policy.bit_depth,
        into=into,
    )
    if policy.bit_depth == FLOAT_BITS:
        pixels = in_range(
            pixels, name, policy, number_of(fields, OFFSET, 0.0, name), number_of(fields, SLOPE, 1.0, name)
        )
    frames = frames_of(fields, name)
    _check_frames(frames, name, policy)
    if frames == policy.frames == 1:
        return fit_image(pixels, policy, *seed_parts)
    clip = unstacked(pixels, frames, name)
    travel = frames - policy.frames
    first = derive_seed(*seed_parts, "frames") % (travel + 1) if policy.crop == "random" else travel // 2
    chosen = clip[first : first + policy.frames]
    return np.concatenate([fit_image(frame, policy, *seed_parts) for frame in chosen])


def check_kind(data: bytes, name: str, policy: ImagePolicy, fields: Mapping[str, Any]) -> None:
    """Raise InputError where a sound image can be none of ``policy``, and so no image of its kind can.

    Args:
        data: the bytes of the file.
        name: of it, for errors.
        policy: frames, channels and bits are looked at.
        fields: of the .json beside it.

    """
    _check_frames(frames_of(fields, name), name, policy)
    if image_format(data) == "npy":
        check_array(decode_npy(data, name), name, policy.channels, policy.bit_depth)
    else:
        check_picture(name, policy.channels)


def _check_frames(frames: int, name: str, policy: ImagePolicy) -> None:
    if frames == policy.frames == 1 or frames >= policy.frames > 1:
        return
    if frames == 1:
        remedy = "set frames=1, or pack clips: `freqgan shards pack SRC DST --frames " + f"{policy.frames}`"
    else:
        remedy = f"set frames={frames}" if policy.frames == 1 else f"pack longer clips, or set frames={frames} or fewer"
    wanted = "the model's images are no clips" if policy.frames == 1 else f"the model's clips have {policy.frames}"
    raise InputError(f"{name} has {counted(frames, 'frame')}, and {wanted}: {remedy}")


def frames_of(fields: Mapping[str, Any], name: str) -> int:
    """Return how many frames a sample has by the fields beside it, 1 where these say nothing; InputError for none."""
    frames = fields.get(FRAMES, 1)
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise InputError(f'"frames" beside {name} is {frames!r}: write how many frames are stacked in it')
    return frames


def number_of(fields: Mapping[str, Any], field: str, default: float, name: str) -> float:
    """Return a number of the fields beside a sample, ``default`` where there is none; InputError for another thing."""
    value = fields.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f'"{field}" beside {name} is {value!r}: write a number')
    return float(value)
