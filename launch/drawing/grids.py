"""Pixels arranged for people: grids of images, bands made visible, the pyramid of the bands of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.imaging.pictures import DETAIL_RANGE, LABEL_HEIGHT, WHITE, band_picture, to_image
from cluster.imaging.shown_images import shown_band
from freqgan.bands import Band, SubImages
from freqgan.model.chain import Chain
from freqgan.pixels import to_pixels
from freqgan.transforms import ClipTransform


def tile(images: Pixels, columns: int | None = None, *, scale: int = 1, gap: int = 0) -> Image.Image:
    """Return uint8 (B, C, h, w) as one RGB picture, row by row; about square unless ``columns`` is given.

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


def headed(picture: Image.Image, headings: Sequence[str], gap: int) -> Image.Image:
    """Return a picture of columns of equal width, ``gap`` apart, below their headings."""
    height = LABEL_HEIGHT + 8
    whole = Image.new("RGB", (picture.width, height + picture.height), WHITE)
    whole.paste(picture, (0, height))
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(LABEL_HEIGHT)
    pitch = (picture.width + gap) / len(headings)
    for number, heading in enumerate(headings):
        draw.text(((number + 0.5) * pitch - gap / 2, height / 2), heading, (32, 32, 32), font, anchor="mm")
    return whole


def band_pixels(chain: Chain, band: Band, sub_images: Tensor) -> Pixels:
    """Return normalised sub-images (B, C, h, h) of one band made visible: uint8 (B, c, h, h), grey or colour.

    A low band is shown in pixel range (it grows twofold per level, algorithm of the transform), a high
    band around mid-grey on the scale of the training images' deviation, so that real and generated compare.
    """
    shows_pixels = band.orientation == "LL" and band.time == chain.transform.times[0]
    x = sub_images / DETAIL_RANGE
    if shows_pixels:
        x = chain.statistics.denormalise(band, sub_images) / chain.transform.low_range(band)
    return to_pixels(shown_band(x, chain.transform.coefficients(band.time), chain.settings)).numpy()


def mosaic(chain: Chain, sub_images: SubImages, row: int, scale: int, time: str = "") -> Image.Image:
    """Return all bands of one sample: quadrants as the classic pyramid, rings level by level; see :func:`arranged`.

    ``sub_images`` are normalised (B, C, h, h), of which sample ``row`` is taken. Of clips the bands are those of the
    temporal band ``time``.
    Bands without a GAN are white; bands wide enough carry their names.
    """
    own = {band: x for band, x in sub_images.items() if band.time == time}
    pictures = {band.still: band_pixels(chain, band, x[row : row + 1])[0] for band, x in own.items()}
    transform = chain.transform.still if isinstance(chain.transform, ClipTransform) else chain.transform
    return band_picture(transform, chain.size, pictures, scale)
