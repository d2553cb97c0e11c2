"""PNGs to pixels: by Pillow, apart from 16 bits a sample and transparent colours, which it reads as 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image

from cluster.data.pillow_images import STEP, WITH_ALPHA, Pixels, open_image, orientation_of, to_pixels, turn_upright
from cluster.data.png_samples import END, PngForm, luma, wide_pixels, wide_samples, without_texts
from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError

T = TypeVar("T")


def despite_texts(data: bytes, read: Callable[[bytes], T]) -> T:
    """Return what ``read`` makes of a PNG, or of its pixels alone where Pillow refuses what lies beside them."""
    if END not in data:
        raise ValueError("its end is missing")
    try:
        return read(data)
    except InputError:
        raise
    except Exception:
        pixels_alone = without_texts(data)
        if pixels_alone is None:
            raise
        return read(pixels_alone)


def decode_png(
    data: bytes,
    *,
    name: str,
    channels: int,
    background: tuple[int, int, int],
    max_pixels: int,
    bit_depth: BitDepth,
) -> Pixels:
    """Decode to uint8 or uint16 (H, W, channels), upright; errors as of Pillow, and TooLargeError."""
    image = open_image(data, "png", name, max_pixels)
    image.load()
    form = PngForm.of(data)
    if bit_depth == 16 and form.bits == 16:
        pixels: Pixels = wide_pixels(data, form, channels, STEP * np.array(background))
    else:
        pixels = _narrow_png(image, data, form, channels, background)
        pixels = to_sixteen_bits(pixels) if bit_depth == 16 else pixels
    return turn_upright(pixels, orientation_of(image))


def _narrow_png(
    image: Image.Image, data: bytes, form: PngForm, channels: int, background: tuple[int, int, int]
) -> Pixels:
    """Return the 8 bits of a loaded PNG. Pillow reads a transparent colour as if every PNG had 8 bits a sample."""
    if form.key is None:
        return to_pixels(image, channels, background)
    image.info.pop("transparency", None)
    pixels = to_pixels(image, channels, background)
    if form.bits == 16:
        samples: Pixels = wide_samples(data, form)
    else:
        samples = to_pixels(image, 1 if form.is_grey else 3, background)
    transparent = (samples == form.key_among_samples()).all(axis=2, keepdims=True)
    if channels in WITH_ALPHA:
        return np.concatenate([pixels[:, :, :-1], np.where(transparent, 0, pixels[:, :, -1:])], axis=2).astype(np.uint8)
    paper = background if channels == 3 else luma(np.array(background))
    return np.where(transparent, np.array(paper, np.uint8), pixels)


def in_depth(pixels: Pixels, bit_depth: BitDepth) -> Pixels:
    """Return uint8 or uint16 pixels with 8 or 16 bits: 255 is 65535, and the other way the nearest is taken."""
    if (pixels.dtype == np.uint8) == (bit_depth == 8):
        return pixels
    if bit_depth == 16:
        return to_sixteen_bits(pixels)
    return ((pixels.astype(np.uint32) + STEP // 2) // STEP).astype(np.uint8)


def to_sixteen_bits(pixels: Pixels) -> Pixels:
    """Return uint8 pixels as uint16, 255 as 65535."""
    return pixels.astype(np.uint16) * np.uint16(STEP)
