"""One row per image, one column per kind of it under its name, as one picture: before and after, input and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cluster.storage.folder import Folder
from freqgan.pixels import to_pixels
from launch.drawing.grids import encode_png, headed, tile

SIDE_BY_SIDE = "side_by_side.png"
SHOWN = 16
SCALE_TO = 128
GAP = 2


def write_side_by_side(folder: Folder, columns: Mapping[str, Tensor]) -> None:
    """Write a picture of the first 16 images; ``columns`` are images (B, C, N, N) in [-1, 1] by their heading."""
    images = list(columns.values())
    count, side = min(SHOWN, len(images[0])), images[0].shape[-1]
    rows = torch.stack([column[:count] for column in images], dim=1).flatten(0, 1)
    picture = tile(to_pixels(rows).numpy(), len(columns), scale=max(1, SCALE_TO // side), gap=GAP)
    folder.write(SIDE_BY_SIDE, encode_png(headed(picture, list(columns), GAP)))


def picture_names(urls: Sequence[str]) -> list[str]:
    """Return the names of files without folder and ending, for pictures of them beside the overview.

    With numbers before them where two are alike, or one is that of the overview.
    """
    stems = [url.rstrip("/").rpartition("/")[2].rpartition(".")[0] for url in urls]
    if len({*stems, SIDE_BY_SIDE.partition(".")[0]}) > len(stems):
        return stems
    return [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]
