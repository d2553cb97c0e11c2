"""Arrays of pixels as pictures and as PNG files: whole images, and the bands of one as the pyramid of its transform."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cluster.data.pillow_images import WITH_ALPHA, Pixels
from freqgan.bands import Band
from freqgan.transforms import BandTransform

WHITE = (255, 255, 255)
LABEL_HEIGHT = 14
DETAIL_RANGE = 3.0
"""High bands are shown from -3 (black) over 0 (grey) to 3 (white) of their standard deviations."""


def to_image(pixels: Pixels, scale: int = 1, *, exact: bool = False) -> Image.Image:
    """Return (C, h, w), grey or colour, as an RGB or 16-bit picture, with every pixel repeated ``scale`` times.

    With ``exact``, 2 and 4 channels are grey or colour with transparency.
    """
    if pixels.dtype == np.uint16:
        return Image.fromarray(np.ascontiguousarray(pixels[0].repeat(scale, 0).repeat(scale, 1)))
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if exact and rows.shape[2] in WITH_ALPHA:
        return Image.fromarray(rows)
    image = Image.fromarray(rows[:, :, 0]).convert("RGB") if rows.shape[2] == 1 else Image.fromarray(rows)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def encode_png(image: Image.Image) -> bytes:
    """Return the picture as a PNG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def band_picture(
    transform: BandTransform, size: tuple[int, int], pictures: Mapping[Band, Pixels], scale: int
) -> Image.Image:
    """Return a picture of the bands that hold an image of ``size`` without repetition.

    ``pictures`` are (C, h, w) each; bands that are not among them are white.
    """
    bands = transform.independent_bands()
    sizes = {band: transform.band_size(size, band) for band in bands}
    (height, width), places = arranged(sizes, transform.padded_size(size))
    picture = Image.new("RGB", (width * scale, height * scale), WHITE)
    for band in bands:
        if band in pictures:
            top, left = places[band]
            picture.paste(_labelled(to_image(pictures[band], scale), str(band)), (left * scale, top * scale))
    return picture


def arranged(
    sizes: Mapping[Band, tuple[int, int]], whole: tuple[int, int]
) -> tuple[tuple[int, int], dict[Band, tuple[int, int]]]:
    """Return height and width of a picture of all bands, and where each begins: row, column.

    The low band of a level lies in the corner, HL right of it, LH below, HH diagonal; packets in their band likewise.
    Rings have the size of the image they are part of: one level below the other, the inner ring first.

    Args:
        sizes: height and width of the bands.
        whole: of the image that quadrants are parts of.

    """
    if not any(band.orientation.startswith("R") for band in sizes):
        return whole, {band: _quadrant(band, whole) for band in sizes}
    places: dict[Band, tuple[int, int]] = {}
    top = width = 0
    for level in sorted({band.level for band in sizes}):
        rings = [band for band in sizes if band.level == level and band.orientation != "LL"]
        for number, band in enumerate(rings):
            places[band] = (top, number * sizes[band][1])
        width = max(width, sum(sizes[band][1] for band in rings))
        top += max((sizes[band][0] for band in rings), default=0)
    low = next(band for band in sizes if band.orientation == "LL")
    places[low] = (top, 0)
    return (top + sizes[low][0], width), places


def _quadrant(band: Band, whole: tuple[int, int]) -> tuple[int, int]:
    """Return where it begins: its level's quadrant of the image, and therein that of each further split."""
    top = left = 0
    height, width = (side >> band.level for side in whole)
    for step in (band.orientation[i : i + 2] for i in range(0, len(band.orientation), 2)):
        top, left = top + height * (step[1] == "H"), left + width * (step[0] == "H")
        height, width = height // 2, width // 2
    return top, left


def _labelled(image: Image.Image, text: str) -> Image.Image:
    """Return the image with its name in the upper left corner and a hairline around it.

    There is no name where there is no room.
    """
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=(96, 96, 96))
    if image.width >= 48:
        font = ImageFont.load_default(LABEL_HEIGHT)
        left, top, right, bottom = draw.textbbox((5, 3), text, font)
        draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=(32, 32, 32))
        draw.text((5, 3), text, (240, 240, 240), font)
    return image
