"""``freqgan super-resolve`` and ``freqgan edit``: files in, pictures out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cluster.data.decoding import Pixels, decode_image, fit_image
from cluster.data.settings import ImagePolicy
from cluster.run.checkpoints import open_model
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.errors import InputError
from freqgan.generation.editing import low_band, redraw, super_resolve, weigh
from freqgan.generation.synthesiser import BLOCK, Draws, Synthesiser
from freqgan.metrics.catalogue import FEWEST
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.pixels import from_pixels, to_pixels
from launch.console.text import images_text
from launch.drawing.grids import encode_png, headed, tile, to_image

SIDE_BY_SIDE = "side_by_side.png"
SHOWN = 16
SCALE_TO = 128
GAP = 2
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)


def super_resolve_command(
    run: str, images: Sequence[str], *, level: int, out: str, seed: int, label: int | None, note: Callable[[str], None]
) -> list[str]:
    """Enlarges image files with the chain of ``run``; returns lines that say what was made and how good it is.

    An image as small as the low band of ``level`` is enlarged to the model's size. An image of the model's size or
    larger is reduced to that low band first, and the result is compared with it, and with bicubic enlargement.

    Raises:
        InputError: files, sizes, level or label that cannot be used.

    """
    checkpoint, synthesiser = open_model(run)
    for text in checkpoint.notes:
        note(text)
    settings = synthesiser.settings
    if not 1 <= level <= settings.levels:
        raise InputError(f"--from-level {level}: the model has levels 1 (finest) to {settings.levels}")
    folder = open_folder(out)
    folder.check_writable()
    given = [_read(synthesiser, url, level) for url in images]
    enlarged = torch.cat(
        [
            super_resolve(
                synthesiser, torch.cat([g.low for g in block]), level, _draws(synthesiser, seed, block, label)
            )
            for block in (given[i : i + BLOCK] for i in range(0, len(given), BLOCK))
        ]
    )
    bicubic = torch.cat([_bicubic(g.low, settings.image_size) for g in given])
    for name, pixels in zip(_names(given), to_pixels(enlarged, settings.bit_depth).numpy(), strict=True):
        folder.write(f"{name}.png", encode_png(to_image(pixels)))
    deviation = (low_band(synthesiser, enlarged, level) - torch.cat([g.low for g in given])).abs().max()
    lines = [
        f"{images_text(len(given))} of {settings.image_size} x {settings.image_size} pixels in {folder.url}",
        f"low band of the output against the input: largest difference {float(deviation):.2g} of a range of 2",
    ]
    lines += _comparison(given, enlarged, bicubic)
    _write_rows(folder, _columns(given, enlarged, bicubic, settings.image_size))
    return lines


@dataclass(frozen=True)
class Given:
    """One input: its low band (1, C, h, h), and the whole image (1, C, N, N) where there is one, in [-1, 1]."""

    stem: str
    low: Tensor
    truth: Tensor | None


def _read(synthesiser: Synthesiser, url: str, level: int) -> Given:
    settings = synthesiser.settings
    folder, name = split_object(url)
    pixels = decode_image(folder.read(name), url, channels=settings.channels, bit_depth=settings.bit_depth)
    small, full = synthesiser.chain.band_side(level), settings.image_size
    side = min(pixels.shape[:2])
    if side < full and pixels.shape[:2] != (small, small):
        raise InputError(
            f"{url} has {pixels.shape[1]} x {pixels.shape[0]} pixels; give {small} x {small} to be enlarged from level "
            f"{level}, or at least {full} x {full} to be reduced and compared"
        )
    stem = name.rpartition("/")[2].rpartition(".")[0]
    if pixels.shape[:2] == (small, small):
        return Given(stem, _tensor(pixels.transpose(2, 0, 1)), None)
    truth = _tensor(fit_image(pixels, ImagePolicy(size=full, channels=settings.channels, bit_depth=settings.bit_depth)))
    return Given(stem, low_band(synthesiser, truth, level), truth)


def _names(given: Sequence[Given]) -> list[str]:
    """Those of the inputs; with their numbers before them where two have one name, or one that of the overview."""
    stems = [source.stem for source in given]
    if len({*stems, SIDE_BY_SIDE.partition(".")[0]}) > len(stems):
        return stems
    return [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]


def _tensor(pixels: Pixels) -> Tensor:
    return from_pixels(torch.from_numpy(np.ascontiguousarray(pixels)))[None]


def _draws(synthesiser: Synthesiser, seed: int, block: Sequence[Given], label: int | None) -> Draws:
    draws = synthesiser.draws(seed, len(block))
    classes = synthesiser.settings.classes
    if label is None:
        return draws
    if label >= classes:
        known = f"0 to {classes - 1}" if classes else "none: it was trained without classes"
        raise InputError(f"--label {label}: the model has classes {known}")
    return draws._replace(labels=torch.full((len(block),), label))


def _bicubic(low: Tensor, side: int) -> Tensor:
    """By Pillow, as a person would do it, from the low band rounded to 8 bits."""
    images = [to_image(pixels).resize((side, side), Image.Resampling.BICUBIC) for pixels in to_pixels(low).numpy()]
    rows = [np.asarray(image).transpose(2, 0, 1)[: low.shape[1]] for image in images]
    return torch.cat([_tensor(row) for row in rows])


def _comparison(given: Sequence[Given], enlarged: Tensor, bicubic: Tensor) -> list[str]:
    known = [i for i, g in enumerate(given) if g.truth is not None]
    if not known:
        return []
    truth = torch.cat([g.truth for g in given if g.truth is not None])
    ours, theirs = enlarged[known], bicubic[known]
    small = given[0].low.shape[-1]
    lines = [f"larger than {small} x {small}, so reduced to that first and then compared: {images_text(len(known))}"]
    lines += [f"PSNR against the originals: {_psnr(ours, truth):.2f} dB, bicubic {_psnr(theirs, truth):.2f} dB"]
    if len(known) >= FEWEST:
        real = to_pixels(truth)
        scores = [sliced_wasserstein(real, to_pixels(x))[""] for x in (ours, theirs)]
        lines.append(f"sliced Wasserstein distance to them: {scores[0]:.1f}, bicubic {scores[1]:.1f} (low is good)")
    else:
        lines.append(f"(give at least {FEWEST} originals to have sliced Wasserstein distances as well)")
    return lines


def _psnr(images: Tensor, truth: Tensor) -> float:
    """Mean over the images of 10 log10(255^2 / mean squared error) on 8-bit pixels, dB."""
    errors = (to_pixels(images).float() - to_pixels(truth).float()).square().flatten(1).mean(dim=1)
    return float((10 * torch.log10(255.0**2 / errors.clamp(min=1e-9))).mean())


def _columns(given: Sequence[Given], enlarged: Tensor, bicubic: Tensor, side: int) -> dict[str, Tensor]:
    """Input in blocks of pixels, bicubic, ours and, where all are known, the originals."""
    lows = torch.cat([g.low for g in given])
    blocks = lows.repeat_interleave(side // lows.shape[-1], 2).repeat_interleave(side // lows.shape[-1], 3)
    columns = {"input": blocks, "bicubic": bicubic, "super-resolved": enlarged}
    truths = [g.truth for g in given if g.truth is not None]
    return columns | {"original": torch.cat(truths)} if len(truths) == len(given) else columns


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
) -> str:
    """Writes samples of ``seed`` before and after, and side by side; returns a line that says what was made.

    Raises:
        InputError: bands that are not there, gains that cannot be read, nothing to do.

    """
    factors = _factors(gains)
    if not factors and not resample:
        raise InputError("nothing to do: give --resample HL1,LH1 or --gain HH1=1.5")
    checkpoint, synthesiser = open_model(run)
    for text in checkpoint.notes:
        note(text)
    folder = open_folder(out)
    folder.check_writable()
    draws = synthesiser.draws(seed, count)
    before = synthesiser(draws.noises, draws.labels, draws.choices).images
    after = redraw(synthesiser, draws, resample, synthesiser.draws(resample_seed, count)) if resample else before
    after = weigh(synthesiser, after, factors) if factors else after
    depth = synthesiser.settings.bit_depth
    pixels = [to_pixels(images, depth).numpy() for images in (before, after)]
    for number, (old, new) in enumerate(zip(*pixels, strict=True)):
        folder.write(f"{number:05d}-before.png", encode_png(to_image(old)))
        folder.write(f"{number:05d}-after.png", encode_png(to_image(new)))
    _write_rows(
        folder, {"before": before, "after": after, "difference / 2": (after.clamp(-1, 1) - before.clamp(-1, 1)) / 2}
    )
    return f"{images_text(count)} before, after and the difference (halved, around grey) in {folder.url}"


def _factors(gains: Sequence[str]) -> dict[str, float]:
    factors: dict[str, float] = {}
    for text in gains:
        band, separator, value = (part.strip() for part in text.partition("="))
        if not (separator and _NUMBER.fullmatch(value) and math.isfinite(float(value))):
            raise InputError(f"--gain {text}: write BAND=FACTOR, a finite number, for example HH1=1.5")
        if band in factors:
            raise InputError(f"--gain {text}: {band} has a gain already, {factors[band]:g}; give every band once")
        factors[band] = float(value)
    return factors


def _write_rows(folder: Folder, columns: Mapping[str, Tensor]) -> None:
    """One row per image, one column per kind of it under its name, as one picture."""
    images = list(columns.values())
    count, side = min(SHOWN, len(images[0])), images[0].shape[-1]
    rows = torch.stack([column[:count] for column in images], dim=1).flatten(0, 1)
    picture = tile(to_pixels(rows).numpy(), len(columns), scale=max(1, SCALE_TO // side), gap=GAP)
    folder.write(SIDE_BY_SIDE, encode_png(headed(picture, list(columns), GAP)))
