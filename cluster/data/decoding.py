"""From the bytes of one image to pixels of 8 or 16 bits or floating-point ones, by a declared policy.

JPEG, PNG, WebP and arrays (.npy) only, told by their first bytes and not by their name. EXIF orientation is
applied, CMYK converted, palette and transparency composited on the background, 16 bits scaled to
8 and 8 to 16 as asked, and the first frame taken of an animation. A file that ends early is an error and never padded;
junk in a JPEG, a broken EXIF and texts of any size are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image

from cluster.data.jpeg_decoding import decode_jpeg
from cluster.data.jpeg_segments import why_not_decodable
from cluster.data.pillow_images import (
    MODES,
    WITH_ALPHA,
    is_transparent,
    open_image,
    orientation_of,
    to_pixels,
    turn_upright,
)
from cluster.data.pillow_images import Pixels as Pixels
from cluster.data.pillow_images import TooLargeError as TooLargeError
from cluster.data.png_decoding import decode_png, despite_texts, in_depth, to_sixteen_bits
from cluster.data.png_samples import PngForm
from cluster.data.settings import MAX_PIXELS, WHITE, ImagePolicy
from cluster.formats.arrays import NPY_MAGIC, decode_npy
from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import InputError
from freqgan.seeds import derive_seed
from freqgan.sizes import Size

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "webp")


def image_format(data: bytes) -> Literal["jpg", "png", "webp", "npy"] | None:
    """Return the format by the first bytes, as a file extension; None when it is none of the four."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[: len(NPY_MAGIC)] == NPY_MAGIC:
        return "npy"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


@dataclass(frozen=True)
class ImageForm:
    """What :func:`decode_image` can give of an image, and ``changes``: what it does not give as it is stored."""

    channels: int
    bit_depth: BitDepth
    changes: tuple[str, ...] = ()


def natural_form(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageForm:
    """Return the channels and bits that hold the most of an image: (1, 16), (1, 8) or (3, 8).

    Raises InputError naming ``name`` for what is no JPEG, PNG or WebP, and for more than ``max_pixels`` pixels.
    """
    kind = image_format(data)
    try:
        if kind == "png":
            return despite_texts(data, partial(_png_form, name=name, max_pixels=max_pixels))
        if kind is not None and kind != "npy":
            return _form(open_image(data, kind, name, max_pixels))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} is no {kind} that can be read ({error})") from error
    raise InputError(f"{name} is no JPEG, PNG or WebP that can be read")


def _png_form(data: bytes, name: str, max_pixels: int) -> ImageForm:
    form, image = PngForm.of(data), open_image(data, "png", name, max_pixels)
    grey, wide = form.is_grey, form.bits == 16
    changes = ("8 of its 16 bits a sample",) if wide and not grey else ()
    return ImageForm(1 if grey else 3, 16 if wide and grey else 8, changes + _form(image).changes)


def _form(image: Image.Image) -> ImageForm:
    frames, changes = getattr(image, "n_frames", 1), list[str]()
    if image.mode == "CMYK":
        changes.append("CMYK as RGB")
    if is_transparent(image):
        changes.append("its transparency laid on white")
    if frames > 1:
        changes.append(f"the first of its {frames} frames")
    if orientation_of(image) != 1:
        changes.append("turned upright")
    return ImageForm(1 if image.mode == "L" else 3, 8, tuple(changes))


def decode_image(
    data: bytes,
    name: str,
    *,
    channels: int = 3,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    bit_depth: BitDepth = 8,
    into: Pixels | None = None,
) -> Pixels:
    """Decode to uint8 or uint16 (H, W, channels), upright.

    PNGs and arrays of 16 bits keep them where 16 are wanted; all others are taken times 257. With 32 bits the values
    are those of the file, of whatever type: who wants them brings them to a range, see :func:`in_range`.

    Pictures come as grey (1 channel) or colour (3), on ``background``, or with their transparency (2 and 4); arrays
    have to have as many channels as are wanted.

    ``into`` (C order) may be used as memory for it, where the image has its shape: the result tells whether it was.

    Raises InputError naming ``name``: no such format; damaged or cut off; other channels; TooLargeError for more than
    ``max_pixels`` pixels.
    """
    kind = image_format(data)
    if kind is None:
        raise InputError(f"{name} is no JPEG, PNG or WebP (it begins with {data[:8]!r}): convert or remove it")
    if kind == "npy":
        return _array(data, name, channels, max_pixels, bit_depth)
    check_picture(name, channels)
    try:
        if bit_depth == FLOAT_BITS:
            bit_depth = 16 if kind == "png" and PngForm.of(data).bits == 16 else 8
        if kind == "png":
            decode = partial(decode_png, name=name, max_pixels=max_pixels, bit_depth=bit_depth)
            return despite_texts(data, partial(decode, channels=channels, background=background))
        if kind == "jpg":
            colours = channels - (channels in WITH_ALPHA)
            pixels = decode_jpeg(data, name, colours, max_pixels, into if bit_depth == 8 else None)
            if colours != channels:
                pixels = np.concatenate([pixels, np.full_like(pixels[:, :, :1], 255)], axis=2)
        else:
            image = open_image(data, kind, name, max_pixels)
            pixels = turn_upright(to_pixels(image, channels, background), orientation_of(image))
        return pixels if bit_depth == 8 else to_sixteen_bits(pixels)
    except InputError:
        raise
    # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error and more for a damaged file.
    except Exception as error:
        if kind == "jpg" and (reason := why_not_decodable(data)):
            raise InputError(f"{name} cannot be decoded ({reason}): convert or remove it") from error
        raise InputError(f"{name} is damaged or cut off ({error}): replace or remove it") from error


def _array(data: bytes, name: str, channels: int, max_pixels: int, bit_depth: BitDepth) -> Pixels:
    """Return an array (H, W, channels) of a .npy file with the bits that are wanted; with 32 as it is."""
    values = decode_npy(data, name, max_pixels)
    check_array(values, name, channels, bit_depth)
    return values if bit_depth == FLOAT_BITS else in_depth(values, bit_depth)


def check_picture(name: str, channels: int) -> None:
    """Raise InputError where a JPEG, PNG or WebP cannot come with so many channels."""
    if channels not in MODES:
        raise InputError(
            f"{name} is a picture, grey or in colour, and channels is {channels}: give arrays (.npy) of {channels} "
            "channels, or set channels=3"
        )


def check_array(values: Pixels, name: str, channels: int, bit_depth: BitDepth) -> None:
    """Raise InputError where an array (H, W, C) has other channels, or floats where whole numbers are wanted."""
    if values.shape[2] != channels:
        raise InputError(
            f"{name} has {values.shape[2]} channels, and channels is {channels}: set channels={values.shape[2]}, or "
            "leave it out"
        )
    if values.dtype == np.float32 and bit_depth != FLOAT_BITS:
        raise InputError(
            f"{name} has floating-point numbers, and bit_depth is {bit_depth}: set bit_depth=32 and value_range="
            "[<least>, <greatest>]"
        )


def in_range(values: Pixels, name: str, policy: ImagePolicy, offset: float = 0.0, slope: float = 1.0) -> Pixels:
    """Return values (H, W, C) of any type as float32, those of the policy's ``value_range`` as [-1, 1].

    Stored numbers are multiplied by ``slope`` first, and ``offset`` is added. Raises InputError naming ``name`` where
    some lie outside, unless the policy clips them.
    """
    least, greatest = policy.value_range or (0.0, 1.0)
    exact = values.astype(np.float64) * slope + offset
    low, high = float(exact.min()), float(exact.max())
    if not (least <= low and high <= greatest) and not policy.clip_values:
        raise InputError(
            f"{name} has values from {low:g} to {high:g}, outside of value_range=[{least:g}, {greatest:g}]: set a "
            "wider value_range, or clip_values=true"
        )
    scaled = (exact - least) * (2 / (greatest - least)) - 1
    return scaled.clip(-1, 1).astype(np.float32)


def fit_image(image: Pixels, policy: ImagePolicy, *seed_parts: int | str) -> Pixels:
    """Crop (H, W, C) to the shape that ``policy`` wants, as much as there is of it, and resample it to (C, h, w).

    The crop lies in the middle or, with crop "random", where :func:`~freqgan.seeds.derive_seed` of
    ``seed_parts`` puts it. Lanczos antialiases, after averaging whole blocks of pixels of images far
    too large (``reducing_gap``); of an image that fits already a view is returned.
    """
    (height, width), target = image.shape[:2], policy.shape
    tall, wide = part = window_of((height, width), target)
    if part != (height, width):
        travel = height - tall + width - wide  # along one of them alone
        offset = derive_seed(*seed_parts) % (travel + 1) if policy.crop == "random" else travel // 2
        image = image[offset : offset + tall] if height > tall else image[:, offset : offset + wide]
    if part != target:
        image = _resized(image, target)
    return image.transpose(2, 0, 1)


def _resized(image: Pixels, size: Size) -> Pixels:
    """Return (H, W, C) resampled to ``size``; Pillow resamples what is no 8-bit grey or colour as floats alone."""
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        plane = image[:, :, 0] if image.shape[2] == 1 else image
        return _lanczos(plane, size).reshape(*size, -1)
    planes = [_lanczos(image[:, :, channel].astype(np.float32), size) for channel in range(image.shape[2])]
    resized = np.stack(planes, axis=2)
    if image.dtype == np.float32:
        return resized.clip(-1, 1)
    largest = 255 if image.dtype == np.uint8 else 65535
    return resized.round().clip(0, largest).astype(image.dtype)


def _lanczos(plane: Pixels, size: Size) -> Pixels:
    picture = Image.fromarray(plane)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=3.0))


def window_of(size: Size, target: Size) -> Size:
    """Return height and width of the largest part of an image of ``size`` that has the shape of ``target``."""
    height, width = size
    if height * target[1] > width * target[0]:
        return max(1, round(width * target[0] / target[1])), width
    return height, max(1, round(height * target[1] / target[0]))
