"""``freqgan encode``: real images as the noises of a chain of flow experts, and images drawn from such noises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from cluster.data.image_files import read_images
from cluster.imaging.shown_images import shown_images
from cluster.run.draws_file import DRAWS, pack_draws, read_draws
from cluster.run.labels import class_of, targets_of_images
from cluster.run.trained_model import open_model
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from freqgan.generation.editing import check_encodable, encode
from freqgan.generation.synthesiser import BLOCK
from launch.commands.generate import write_grid
from launch.console.text import images_text
from launch.drawing.image_files import write_images
from launch.drawing.side_by_side import picture_names, write_side_by_side
from launch.settings.image_request import ImageRequest


def encode_command(
    run: str, images: Sequence[str], *, out: str, seed: int, category: str | None, note: Callable[[str], None]
) -> list[str]:
    """Write the noises of image files, and what ``run`` makes of them; return lines that say how near that is.

    Raises:
        InputError: a model with GANs, files or a class that cannot be used.
        RunError: a step of the solver is too long to be undone.

    """
    checkpoint, synthesiser = open_model(run, note=note)
    settings = synthesiser.settings
    check_encodable(synthesiser)
    targets = targets_of_images(len(images), class_of(category, checkpoint), synthesiser, checkpoint.class_names)
    folder = open_folder(out)
    folder.check_writable()
    originals = read_images(images, settings)
    blocks = []
    for number, rows in enumerate(_blocks(len(originals))):
        note(f"encoding images {rows.start} to {rows.stop - 1} of {len(originals)}")
        own_targets = None if targets is None else targets[rows]
        blocks.append(encode(synthesiser, originals[rows], own_targets, seed, number))
    folder.write(DRAWS, pack_draws(blocks, settings.generation))
    drawn = torch.cat([synthesiser.draw(draws).images for draws in blocks])
    names = picture_names(images)
    write_images(folder, names, drawn, settings)
    difference = drawn - originals
    write_side_by_side(
        folder, {"original": originals, "drawn from noise": drawn, "difference x 100": 100 * difference}, settings
    )
    largest = float(difference.abs().max())
    return [
        f"{images_text(len(images))}: {DRAWS} and what it gives in {folder.url}",
        f"largest difference from the originals: {largest:.2g} of a range of 2",
    ]


def generate_from(request: ImageRequest, vectors: str, note: Callable[[str], None]) -> str:
    """Write the images of a file of draws, see :func:`encode_command`; return a line that says what was written.

    They are drawn as the file says, with its evaluations, solver, guidance and noise on conditions.

    Raises:
        InputError: the file cannot be read, or is of another model; as of
            :meth:`launch.settings.image_request.ImageRequest.open`; options for what the file decides.

    """
    if request.count is not None or request.targets.given:
        raise InputError(
            "--vectors FILE holds how many images there are and what they show: leave out --count, --class, --vector, "
            "--prompt and --like"
        )
    if request.generation.given:
        raise InputError(
            "--vectors FILE holds how its images are generated: leave out --evaluations, --solver, "
            "--condition-noise, --guidance, --shift and --label-guidance"
        )
    request.refuse("--vectors", "seed", "part", "truncation", "save_vectors", "conditioning_run")
    opened = request.open(note)
    checkpoint, model, folder, _ = opened
    stored = read_draws(vectors, model)
    model.set_generation(stored.generation)
    count, shown = 0, []
    for draws in stored.blocks:
        images = model.draw(draws).images
        shown.append(shown_images(images, model.settings))
        names = [f"{number:05d}" for number in range(count, count + len(images))]
        request.write(opened, names, images)
        count += len(images)
    write_grid(folder, shown)
    return f"{images_text(count)} of step {checkpoint.step}, from {vectors}, in {folder.url}"


def _blocks(count: int) -> Iterator[slice]:
    return (slice(first, min(count, first + BLOCK)) for first in range(0, count, BLOCK))
