"""``freqgan generate``: images of the newest checkpoint as PNG files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import open_model
from cluster.storage.folder import open_folder
from freqgan.errors import InputError, nearest
from freqgan.generation.synthesiser import BLOCK, Generated
from freqgan.pixels import to_pixels
from launch.console.text import images_text
from launch.drawing.grids import encode_png, tile, to_image
from launch.settings.generation import AS_TRAINED, GenerationOptions
from launch.settings.labels import class_of

PARTS = ("image", "chain", "companion")
"""The blended image, the image of the chain of bands alone, and the companion's, the other generator's, alone."""
GRID = "grid.png"
GRID_COUNT = 64


def generate(
    run: str,
    out: str,
    *,
    count: int,
    seed: int,
    category: str | None,
    note: Callable[[str], None],
    best: bool = False,
    at_images: int | None = None,
    generation: GenerationOptions = AS_TRAINED,
    part: str = "image",
) -> str:
    """Write ``out``/00000.png ... and a grid of the first 64; return a line that says what was made.

    Image i of a seed is the same file whatever ``count`` is. ``best`` takes the checkpoint that was
    scored best, ``at_images`` the newest of at most so many images. ``note`` is told of checkpoints passed over.
    ``category`` is the class, by its name or number. ``generation`` is how flow experts generate, and ``part`` one of
    :data:`PARTS`.

    Raises:
        InputError: no sound checkpoint, a class or part that the model does not have, ``out`` cannot be written,
            options of flow experts for a model of GANs.

    """
    checkpoint, synthesiser = open_model(run, best=best, at_images=at_images, note=note, generation=generation.apply)
    label = class_of(category, checkpoint)
    _check_part(checkpoint, part)
    folder = open_folder(out)
    folder.check_writable()
    digits = max(5, len(str(count - 1)))
    others = [name for name in folder.files() if name.endswith(".png") and not _is_ours(name, digits, count)]
    if others:
        note(f"{folder.url} holds {len(others)} more .png files, which are left as they are, such as {min(others)}")
    batches: list[Pixels] = []
    for first in range(0, count, BLOCK):
        rows = min(BLOCK, count - first)
        labels = None if label is None else torch.full((rows,), label)
        images = _part_of(synthesiser.sample(seed, rows, first, labels), part)
        for row, image in enumerate(to_pixels(images, synthesiser.settings.bit_depth).numpy()):
            folder.write(f"{first + row:0{digits}d}.png", encode_png(to_image(image)))
        if first < GRID_COUNT:
            batches.append(to_pixels(images).numpy())
    folder.write(GRID, encode_png(tile(np.concatenate(batches)[:GRID_COUNT])))
    steps = set(checkpoint.stage_steps.values())
    step = f"steps {min(steps)} to {max(steps)}" if len(steps) > 1 else f"step {checkpoint.step}"
    return f"{images_text(count)} of {step}, seed {seed}, in {folder.url}"


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
