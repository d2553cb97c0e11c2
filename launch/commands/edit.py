"""``freqgan edit``: single bands of images drawn anew or weighed, all others left as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from torch import Tensor

from cluster.data.image_files import read_images
from cluster.imaging.low_images import detail_draws
from cluster.run.labels import class_of, targets_of_images
from cluster.run.trained_model import open_model
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from freqgan.generation.editing import check_encodable, encode, redraw, weigh
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.generation.synthesiser import BLOCK, Draws, Synthesiser
from launch.console.text import images_text
from launch.drawing.image_files import write_images
from launch.drawing.side_by_side import write_side_by_side

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)


def edit_command(
    run: str,
    *,
    seed: int,
    count: int,
    resample: Sequence[str],
    resample_seed: int | None,
    gains: Sequence[str],
    out: str,
    note: Callable[[str], None],
    images: Sequence[str] = (),
    category: str | None = None,
    generation: GenerationOptions = AS_TRAINED,
) -> str:
    """Write samples of ``seed`` before and after, and side by side; return a line that says what was written.

    In place of samples it takes ``images``, files of real ones; bands of these can be drawn anew by a model of flow
    experts alone. All are of class ``category``, a name or number, where one is given and the model has classes.
    ``generation`` is how flow experts generate. Where ``resample_seed`` is None, ``seed + 1`` draws bands anew, and 1
    those of ``images``.

    Raises:
        InputError: bands that are not there, gains that cannot be read, nothing to do, a ``resample_seed`` that draws
            the same again, images that cannot be used, options of flow experts for a model of GANs.

    """
    factors = _factors(gains)
    if not factors and not resample:
        raise InputError("nothing to do: give --resample HL1,LH1 or --gain HH1=1.5")
    other_seed = _other_seed(resample_seed, None if images or not resample else seed)
    checkpoint, synthesiser = open_model(run, note=note, generation=generation.apply)
    label = class_of(category, checkpoint)
    folder = open_folder(out)
    folder.check_writable()
    if images:
        before = _read(images, synthesiser)
        draws = _encoded(before, label, synthesiser, checkpoint.class_names) if resample else None
    else:
        draws = detail_draws(synthesiser, seed, count, label)
        before = synthesiser.draw(draws).images
    after, number = before, len(before)
    if draws is not None and resample:
        after = redraw(synthesiser, draws, resample, synthesiser.draws(other_seed, number))
    after = weigh(synthesiser, after, factors) if factors else after
    for when, pictures in (("before", before), ("after", after)):
        write_images(folder, [f"{row:05d}-{when}" for row in range(number)], pictures, synthesiser.settings)
    difference = (after.clamp(-1, 1) - before.clamp(-1, 1)) / 2
    columns = {"before": before, "after": after, "difference / 2": difference}
    write_side_by_side(folder, columns, synthesiser.settings)
    return f"{images_text(number)} before, after and the difference (halved, around grey) in {folder.url}"


def _other_seed(resample_seed: int | None, seed: int | None) -> int:
    """Return the seed of what is drawn anew in images of ``seed``, or in real ones where that is None."""
    if resample_seed is None:
        return 1 if seed is None else seed + 1
    if resample_seed == seed:
        raise InputError(
            f"--resample-seed {resample_seed} is the seed of the images, whose bands it would draw as they are: give "
            f"another one, or leave it out, and it is {seed + 1}"
        )
    return resample_seed


def _read(urls: Sequence[str], synthesiser: Synthesiser) -> Tensor:
    """Return real images (B, C, N, N); InputError where they are more than are edited together."""
    if len(urls) > BLOCK:
        raise InputError(f"--image is given {len(urls)} times, and {BLOCK} images are edited at a time: give fewer")
    return read_images(urls, synthesiser.settings)


def _encoded(images: Tensor, label: int | None, synthesiser: Synthesiser, class_names: Sequence[str]) -> Draws:
    """Return what ``images`` (B, C, N, N) of class ``label`` are made of, by a model of ``class_names``."""
    check_encodable(synthesiser)
    return encode(synthesiser, images, targets_of_images(len(images), label, synthesiser, class_names))


def _factors(gains: Sequence[str]) -> dict[str, float]:
    """Return the factor of every band that ``gains`` names as BAND=FACTOR."""
    factors: dict[str, float] = {}
    for text in gains:
        band, separator, value = (part.strip() for part in text.partition("="))
        if not (separator and _NUMBER.fullmatch(value) and math.isfinite(float(value))):
            raise InputError(f"--gain {text}: write BAND=FACTOR, a finite number, for example HH1=1.5")
        if band in factors:
            raise InputError(f"--gain {text}: {band} has a gain already, {factors[band]:g}; give every band once")
        factors[band] = float(value)
    return factors
