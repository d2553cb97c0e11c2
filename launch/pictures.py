"""Pixels arranged for people: grids of images, bands made visible, the pyramid of a wavelet transform; PNG."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, Band, SubImages
from freqgan.chain import Chain
from freqgan.synthesiser import to_pixels

Pixels = NDArray[np.uint8]
WHITE = (255, 255, 255)
LABEL_HEIGHT = 14

DETAIL_RANGE = 3.0
"""High bands are shown from -3 (black) over 0 (grey) to 3 (white) of their standard deviations."""


def tile(images: Pixels, columns: int | None = None, *, scale: int = 1, gap: int = 0) -> Image.Image:
    """uint8 (B, C, h, w) as one RGB picture, row by row; about square unless ``columns`` is given.

    ``scale`` repeats every pixel; ``gap`` is the white space between the tiles in pixels of the picture.
    """
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    tall, wide = height * scale + gap, width * scale + gap
    picture = Image.new("RGB", (columns * wide - gap, rows * tall - gap), WHITE)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        picture.paste(to_image(image, scale), (column * wide, row * tall))
    return picture


def to_image(pixels: Pixels, scale: int = 1) -> Image.Image:
    """uint8 (C, h, w), grey or colour, as an RGB picture with every pixel repeated ``scale`` times."""
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(rows[:, :, 0]).convert("RGB") if rows.shape[2] == 1 else Image.fromarray(rows)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def encode_png(image: Image.Image) -> bytes:
    """The picture as a PNG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def band_pixels(chain: Chain, band: Band, sub_images: Tensor) -> Pixels:
    """Normalised sub-images (B, C, h, h) of one band made visible: uint8 of the same shape.

    A low band is shown in pixel range (it grows twofold per level, algorithm of the transform), a high
    band around mid-grey on the scale of the training images' deviation, so that real and generated compare.
    """
    if band.orientation == "LL":
        return to_pixels(chain.statistics.denormalise(band, sub_images) / 2**band.level).numpy()
    return to_pixels(sub_images / DETAIL_RANGE).numpy()


def mosaic(chain: Chain, sub_images: SubImages, row: int, scale: int) -> Image.Image:
    """The classic pyramid of one sample: the coarsest low band in the corner, HL right, LH below, HH diagonal.

    Bands without a GAN are white; bands wide enough carry their names.
    """
    side = chain.band_side(1) * 2 * scale
    picture = Image.new("RGB", (side, side), WHITE)
    for level in range(chain.settings.levels, 0, -1):
        half = chain.band_side(level) * scale
        places = {"HL": (half, 0), "LH": (0, half), "HH": (half, half)}
        shown = {Band(level, o): places[o] for o in HIGH_ORIENTATIONS}
        if level == chain.settings.levels:
            shown[Band(level, "LL")] = (0, 0)
        for band, place in shown.items():
            if band in sub_images:
                pixels = band_pixels(chain, band, sub_images[band][row : row + 1])[0]
                picture.paste(_labelled(to_image(pixels, scale), str(band)), place)
    return picture


def _labelled(image: Image.Image, text: str) -> Image.Image:
    """The image with its name in the upper left corner and a hairline around it, where there is room for a name."""
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=(96, 96, 96))
    if image.width >= 48:
        font = ImageFont.load_default(LABEL_HEIGHT)
        left, top, right, bottom = draw.textbbox((5, 3), text, font)
        draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=(32, 32, 32))
        draw.text((5, 3), text, (240, 240, 240), font)
    return image
