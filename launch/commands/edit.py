"""``freqgan edit``: single bands of generated images drawn anew or weighed, all others left as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from cluster.run.checkpoints import open_model
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from freqgan.generation.editing import redraw, weigh
from freqgan.pixels import to_pixels
from launch.console.text import images_text
from launch.drawing.grids import encode_png, to_image
from launch.drawing.side_by_side import write_side_by_side
from launch.settings.generation import AS_TRAINED, GenerationOptions

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)


def edit_command(
    run: str,
    *,
    seed: int,
    count: int,
    resample: Sequence[str],
    resample_seed: int,
    gains: Sequence[str],
    out: str,
    note: Callable[[str], None],
    generation: GenerationOptions = AS_TRAINED,
) -> str:
    """Write samples of ``seed`` before and after, and side by side; return a line that says what was written.

    ``generation`` is how flow experts generate.

    Raises:
        InputError: bands that are not there, gains that cannot be read, nothing to do, options of flow experts for a
            model of GANs.

    """
    factors = _factors(gains)
    if not factors and not resample:
        raise InputError("nothing to do: give --resample HL1,LH1 or --gain HH1=1.5")
    _, synthesiser = open_model(run, note=note, generation=generation.apply)
    folder = open_folder(out)
    folder.check_writable()
    draws = synthesiser.draws(seed, count)
    before = synthesiser.draw(draws).images
    after = redraw(synthesiser, draws, resample, synthesiser.draws(resample_seed, count)) if resample else before
    after = weigh(synthesiser, after, factors) if factors else after
    depth = synthesiser.settings.bit_depth
    pixels = [to_pixels(images, depth).numpy() for images in (before, after)]
    for number, (old, new) in enumerate(zip(*pixels, strict=True)):
        folder.write(f"{number:05d}-before.png", encode_png(to_image(old)))
        folder.write(f"{number:05d}-after.png", encode_png(to_image(new)))
    write_side_by_side(
        folder, {"before": before, "after": after, "difference / 2": (after.clamp(-1, 1) - before.clamp(-1, 1)) / 2}
    )
    return f"{images_text(count)} before, after and the difference (halved, around grey) in {folder.url}"


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
