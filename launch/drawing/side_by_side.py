"""One row per image, one column per kind of it under its name, as one picture: before and after, input and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.imaging.pictures import WHITE, encode_png, to_image
from cluster.imaging.shown_images import shown_images
from cluster.storage.folder import Folder
from freqgan.model.settings import ModelSettings
from launch.drawing.grids import headed, tile

SIDE_BY_SIDE, SHEET = "side_by_side.png", "sheet.png"
SHOWN = 16
SCALE_TO = 128
GAP = 2
CELL = 320
"""Pixels of the longer side of a picture on a sheet, at most."""


def write_side_by_side(folder: Folder, columns: Mapping[str, Tensor], settings: ModelSettings) -> None:
    """Write a picture of the first 16 images of a model of ``settings``.

    ``columns`` are images (B, C, N, N) in [-1, 1] by their heading.
    """
    images = list(columns.values())
    count, side = min(SHOWN, len(images[0])), max(images[0].shape[-2:])
    rows = torch.stack([column[:count] for column in images], dim=1).flatten(0, 1)
    picture = tile(shown_images(rows, settings), len(columns), scale=max(1, SCALE_TO // side), gap=GAP)
    folder.write(SIDE_BY_SIDE, encode_png(headed(picture, list(columns), GAP)))


def write_sheet(folder: Folder, headings: Sequence[str], rows: Sequence[Sequence[Pixels]]) -> None:
    """Write a picture of ``rows`` of uint8 images (C, h, w) of any sizes, reduced to fit, a column for each heading."""
    pictures = [to_image(pixels) for row in rows for pixels in row]
    for picture in pictures:
        picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    cells = np.stack([np.asarray(_centred(picture, width, height)).transpose(2, 0, 1) for picture in pictures])
    scale = max(1, SCALE_TO // max(width, height))
    sheet = tile(cells, len(headings), scale=scale, gap=GAP)
    folder.write(SHEET, encode_png(headed(sheet, headings, GAP)))


def _centred(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return ``picture`` in the middle of a white one."""
    whole = Image.new("RGB", (width, height), WHITE)
    whole.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return whole


def picture_names(urls: Sequence[str]) -> list[str]:
    """Return the names of files without folder and ending, for pictures of them beside the overview.

    With numbers before them where two are alike, or one is that of the overview.
    """
    stems = [url.rstrip("/").rpartition("/")[2].rpartition(".")[0] for url in urls]
    if len({*stems, SIDE_BY_SIDE.partition(".")[0]}) > len(stems):
        return stems
    return [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]
