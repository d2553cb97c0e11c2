"""``freqgan generate``: images of the newest checkpoint as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.run.checkpoint import Checkpoint
from cluster.run.draws_file import DRAWS, pack_draws
from cluster.storage.folder import Folder
from freqgan.errors import InputError, nearest
from freqgan.generation.synthesiser import BLOCK, Draws, Generated, Synthesiser
from freqgan.generation.targets import targets_for
from freqgan.pixels import to_pixels
from launch.console.text import images_text
from launch.drawing.grids import encode_png, tile, to_image
from launch.settings.image_request import ImageRequest

PARTS = ("image", "chain", "companion")
"""The blended image, the image of the chain of bands alone, and the companion's, the other generator's, alone."""
GRID = "grid.png"
GRID_COUNT = 64
GRID_SIDE = 32
"""Pixels that an image of the grid has at least along a side."""


def generate(request: ImageRequest, note: Callable[[str], None]) -> str:
    """Write 00000.png ... and a grid of the first 64 into the folder of ``request``; return a line that says so.

    Image i of a seed is the same file whatever the count is. ``note`` is told of checkpoints passed over.

    Raises:
        InputError: as of :meth:`launch.settings.image_request.ImageRequest.open`; no count, a class, target or part
            that the model does not have.

    """
    count = request.count
    if count is None:
        raise InputError("how many images? Give --count, or --vectors with a file that --save-vectors wrote")
    checkpoint, model, folder = request.open(note)
    _check_part(checkpoint, request.part)
    digits = max(5, len(str(count - 1)))
    others = [name for name in folder.files() if name.endswith(".png") and not _is_ours(name, digits, count)]
    if others:
        note(f"{folder.url} holds {len(others)} more .png files, which are left as they are, such as {min(others)}")
    batches: list[Pixels] = []
    blocks: list[Draws] = []
    for first in range(0, count, BLOCK):
        rows = slice(min(BLOCK, count - first))
        draws = _draws(request, checkpoint, model, first, rows.stop)
        blocks.append(draws.rows(rows))
        # All of a block is drawn, for convolutions round differently by batch.
        images = _part_of(model.draw(draws).rows(rows), request.part)
        for row, image in enumerate(to_pixels(images, model.settings.bit_depth).numpy()):
            folder.write(f"{first + row:0{digits}d}.png", encode_png(to_image(image)))
        if first < GRID_COUNT:
            batches.append(to_pixels(images).numpy())
    if request.save_vectors:
        folder.write(DRAWS, pack_draws(blocks, model.settings.generation))
    write_grid(folder, batches)
    steps = set(checkpoint.stage_steps.values())
    step = f"steps {min(steps)} to {max(steps)}" if len(steps) > 1 else f"step {checkpoint.step}"
    return f"{images_text(count)} of {step}, seed {request.seed}, in {folder.url}"


def write_grid(folder: Folder, batches: Sequence[Pixels]) -> None:
    """Write the first 64 of images (B, C, N, N) as one picture, small ones enlarged."""
    pixels = np.concatenate(batches)[:GRID_COUNT]
    folder.write(GRID, encode_png(tile(pixels, scale=max(1, GRID_SIDE // pixels.shape[-1]))))


def _draws(request: ImageRequest, checkpoint: Checkpoint, model: Synthesiser, first: int, count: int) -> Draws:
    """Return the draws of the block that begins with image ``first``, with the targets of ``count`` of them."""
    asked = None
    if request.targets.given:
        parts = request.targets.parts(checkpoint, count, first)
        asked = targets_for(model, request.seed, count, parts, first)
    return model.block_draws(request.seed, first // BLOCK, asked).scaled(request.truncation)


def _is_ours(name: str, digits: int, count: int) -> bool:
    """Return whether this many images have a file of that name, or it is the grid."""
    number = name.removesuffix(".png")
    numbered = len(number) == digits and number.isascii() and number.isdecimal() and int(number) < count
    return numbered or name == GRID


def _part_of(generated: Generated, part: str) -> Tensor:
    """Return the images (B, C, N, N) of one of :data:`PARTS`."""
    return {"image": generated.images, "chain": generated.frequency, "companion": generated.conventional}[part]


def _check_part(checkpoint: Checkpoint, part: str) -> None:
    if part not in PARTS:
        raise InputError(
            f"--part {part}: no part is called so{nearest(part, list(PARTS))}; there are {', '.join(PARTS)}"
        )
    if part == "companion" and not checkpoint.settings.image_stage.enabled:
        raise InputError(
            "--part companion: the model has no image stage, and with it no companion; leave --part out: its images "
            "are those of the chain"
        )
    has_bands = checkpoint.settings.system == "fusion" or checkpoint.settings.band_plan().gans
    if part == "chain" and not has_bands:
        raise InputError("--part chain: the model has no bands, all of it is its companion; leave --part out")
