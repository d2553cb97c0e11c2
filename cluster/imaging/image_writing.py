"""Images and clips as files: pictures and animations where these hold all of it, arrays where they do not."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.formats.animations import AnimationKind, encode_animation
from cluster.formats.arrays import encode_npy
from cluster.formats.video import encode_mp4
from cluster.imaging.pictures import encode_png, to_image
from cluster.imaging.shown_images import shown_frames
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError, nearest
from freqgan.model.clips import apart
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_pixels, to_values

CLIP_FORMATS = ("webp", "gif", "apng", "mp4")
SCAN_FORMATS = ("dicom", "nifti")
STILL_FORMATS = ("png", "npy")
"""Written by :mod:`cluster.imaging.scan_writing`."""
USUAL_FPS = 8.0
PICTURE_CHANNELS = {8: (1, 2, 3, 4), 16: (1,)}
"""Channels of images that a PNG holds, by their bits."""


class ImageFile(NamedTuple):
    """The extension and the bytes of a file."""

    extension: str
    data: bytes


def stored_arrays(images: Tensor, settings: ModelSettings) -> list[Pixels]:
    """Return images (B, T C, H, W) in [-1, 1] as arrays of the model's bits: (H, W, C), of clips (T, H, W, C).

    Those of 32 bits are values of the model's range.
    """
    pixels = to_pixels(images.cpu(), settings.bit_depth)
    if settings.bit_depth == FLOAT_BITS:
        pixels = to_values(pixels.double(), settings.value_ends).float()
    frames = apart(pixels, settings.frames).permute(0, 1, 3, 4, 2).numpy()
    return [np.ascontiguousarray(one[0] if settings.frames == 1 else one) for one in frames]


def is_picture(settings: ModelSettings) -> bool:
    """Return whether a PNG holds all of an image of the model."""
    return settings.frames == 1 and settings.channels in PICTURE_CHANNELS.get(settings.bit_depth, ())


def formats_of(settings: ModelSettings) -> tuple[str, ...]:
    """Return the formats that an image of the model can be written in; the first is the usual one."""
    scans: tuple[str, ...] = SCAN_FORMATS if settings.channels == 1 else ()
    if settings.bit_depth == 8 and settings.channels == 3:
        scans = ("dicom",)
    if settings.frames == 1:
        return (*(("png",) if is_picture(settings) else ()), "npy", *scans)
    shown = settings.bit_depth == 8 and settings.channels in (1, 3)
    return (*((*CLIP_FORMATS, "npy") if shown else ("npy", *CLIP_FORMATS)), *scans)


def check_format(kind: str, settings: ModelSettings) -> None:
    """Raise InputError where an image of the model cannot be written in the format ``kind``."""
    known = formats_of(settings)
    if kind not in known:
        noun = "clips" if settings.frames > 1 else "images"
        hint = "" if kind in (*STILL_FORMATS, *CLIP_FORMATS, *SCAN_FORMATS) else nearest(kind, list(known))
        raise InputError(
            f"--format {kind}: {noun} of this model ({settings.channels} channels, {settings.bit_depth} bits) are not "
            f"written so{hint}; there are {', '.join(known)}"
        )


def image_files(images: Tensor, settings: ModelSettings, kind: str = "", fps: float = USUAL_FPS) -> list[ImageFile]:
    """Return the file of each of ``images`` (B, T C, H, W) in [-1, 1].

    Args:
        images: of a model.
        settings: of it.
        kind: one of :func:`formats_of`, but for scans; the first of these where it is "". Animations show 8 bits of the
            channels that people see, and lose nothing of clips that have no more, but for GIF and mp4.
        fps: frames a second of clips.

    Raises:
        InputError: the images cannot be written so.

    """
    kind = kind or formats_of(settings)[0]
    check_format(kind, settings)
    if kind == "npy":
        return [ImageFile("npy", encode_npy(array)) for array in stored_arrays(images, settings)]
    if kind == "png":
        arrays = stored_arrays(images, settings)
        return [ImageFile("png", encode_png(to_image(array.transpose(2, 0, 1), exact=True))) for array in arrays]
    clips = [np.ascontiguousarray(frames.transpose(0, 2, 3, 1)) for frames in shown_frames(images, settings)]
    if kind == "mp4":
        return [ImageFile(kind, encode_mp4(frames, fps)) for frames in clips]
    return [ImageFile(kind, encode_animation(frames, fps, cast(AnimationKind, kind))) for frames in clips]
