"""Images as files: pictures where a picture holds all of it, arrays where none does."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.formats.arrays import encode_npy
from cluster.imaging.pictures import encode_png, to_image
from freqgan.bit_depth import FLOAT_BITS
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_pixels

PICTURE_CHANNELS = {8: (1, 2, 3, 4), 16: (1,)}
"""Channels of images that a PNG holds, by their bits."""


def stored_arrays(images: Tensor, settings: ModelSettings) -> list[Pixels]:
    """Return images (B, T C, H, W) in [-1, 1] as arrays of the model's bits: (H, W, C), of clips (T, H, W, C).

    Those of 32 bits are values of the model's range.
    """
    pixels = to_pixels(images.cpu(), settings.bit_depth).numpy()
    if settings.bit_depth == FLOAT_BITS:
        least, greatest = settings.value_range or (0.0, 1.0)
        pixels = ((pixels.astype(np.float64) + 1) / 2 * (greatest - least) + least).astype(np.float32)
    batch, _, height, width = pixels.shape
    frames = pixels.reshape(batch, settings.frames, settings.channels, height, width).transpose(0, 1, 3, 4, 2)
    return [np.ascontiguousarray(one[0] if settings.frames == 1 else one) for one in frames]


def is_picture(settings: ModelSettings) -> bool:
    """Return whether a PNG holds all of an image of the model."""
    return settings.frames == 1 and settings.channels in PICTURE_CHANNELS.get(settings.bit_depth, ())


def image_files(images: Tensor, settings: ModelSettings) -> list[tuple[str, bytes]]:
    """Return the extension and the bytes of the file of each of ``images`` (B, T C, H, W) in [-1, 1].

    That is a PNG where one holds all of an image, and else a .npy of :func:`stored_arrays`.
    """
    arrays = stored_arrays(images, settings)
    if not is_picture(settings):
        return [("npy", encode_npy(array)) for array in arrays]
    return [("png", encode_png(to_image(array.transpose(2, 0, 1), exact=True))) for array in arrays]
