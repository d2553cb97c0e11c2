"""``freqgan generate``: images of the newest checkpoint as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cluster.data.decoding import Pixels
from cluster.imaging.image_writing import formats_of
from cluster.imaging.pictures import encode_png
from cluster.imaging.shown_images import shown_images
from cluster.run.checkpoint import Checkpoint
from cluster.run.draws_file import DRAWS, pack_draws
from cluster.storage.folder import Folder
from freqgan.errors import InputError
from freqgan.generation.parts import check_part, part_of
from freqgan.generation.synthesiser import BLOCK, Draws, Synthesiser
from freqgan.generation.targets import targets_for
from launch.console.text import images_text
from launch.drawing.grids import tile
from launch.settings.image_request import ImageRequest

GRID = "grid.png"
GRID_COUNT = 64
GRID_SIDE = 32
"""Pixels that an image of the grid has at least along a side."""
EXTENSIONS = {"dicom": "dcm", "nifti": "nii.gz"}
"""Of formats that have another name."""


def generate(request: ImageRequest, note: Callable[[str], None]) -> str:
    """Write 00000.png ..., or files of another kind, and a grid of the first 64 into the folder of ``request``.

    Return a line that says so.

    Image i of a seed is the same file whatever the count is. ``note`` is told of checkpoints passed over.

    Raises:
        InputError: as of :meth:`launch.settings.image_request.ImageRequest.open`; no count, a class, target or part
            that the model does not have.

    """
    count = request.count
    if count is None:
        raise InputError("how many images? Give --count, or --vectors with a file that --save-vectors wrote")
    opened = request.open(note)
    checkpoint, model, folder, _ = opened
    check_part(checkpoint.settings, request.part)
    digits = max(5, len(str(count - 1)))
    kind = request.kind or formats_of(checkpoint.settings)[0]
    others = _others(folder, EXTENSIONS.get(kind, kind), digits, count)
    if others:
        extension = EXTENSIONS.get(kind, kind)
        note(
            f"{folder.url} holds {len(others)} more .{extension} files, which are left as they are, such as "
            f"{min(others)}"
        )
    batches: list[Pixels] = []
    blocks: list[Draws] = []
    for first in range(0, count, BLOCK):
        rows = slice(min(BLOCK, count - first))
        draws = _draws(request, checkpoint, model, first, rows.stop)
        blocks.append(draws.rows(rows))
        # All of a block is drawn, for convolutions round differently by batch.
        images = part_of(model.draw(draws).rows(rows), request.part)
        request.write(opened, [f"{first + row:0{digits}d}" for row in range(len(images))], images)
        if first < GRID_COUNT:
            batches.append(shown_images(images, model.settings))
    if request.save_vectors:
        folder.write(DRAWS, pack_draws(blocks, model.settings.generation))
    write_grid(folder, batches)
    steps = set(checkpoint.stage_steps.values())
    step = f"steps {min(steps)} to {max(steps)}" if len(steps) > 1 else f"step {checkpoint.step}"
    return f"{images_text(count)} of {step}, seed {request.seed}, in {folder.url}"


def write_grid(folder: Folder, batches: Sequence[Pixels]) -> None:
    """Write the first 64 of images (B, C, N, N) as one picture, small ones enlarged."""
    pixels = np.concatenate(batches)[:GRID_COUNT]
    folder.write(GRID, encode_png(tile(pixels, scale=max(1, GRID_SIDE // max(pixels.shape[-2:])))))


def _draws(request: ImageRequest, checkpoint: Checkpoint, model: Synthesiser, first: int, count: int) -> Draws:
    """Return the draws of the block that begins with image ``first``, with the targets of ``count`` of them."""
    asked = None
    if request.targets.given:
        parts = request.targets.parts(checkpoint, count, first)
        asked = targets_for(model, request.seed, count, parts, first)
    return model.block_draws(request.seed, first // BLOCK, asked).scaled(request.truncation)


def _others(folder: Folder, extension: str, digits: int, count: int) -> list[str]:
    """Return the files of an extension in ``folder`` that are of no image of this many."""
    return [
        name
        for name in folder.files()
        if name.endswith(f".{extension}") and not _is_ours(name, extension, digits, count)
    ]


def _is_ours(name: str, extension: str, digits: int, count: int) -> bool:
    """Return whether this many images have a file of that name, or it is the grid."""
    number = name.removesuffix(f".{extension}")
    numbered = len(number) == digits and number.isascii() and number.isdecimal() and int(number) < count
    return numbered or name == GRID
