"""Labelled pictures of letters, drawn with the fonts of matplotlib, and ways to spoil what images show."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from freqgan.bands import Band
from freqgan.transforms import parse_transform

LETTERS = "AEHKOSTX"
SIDE = 16
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold")
LEVELS = 2


def glyphs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Grey letters, uint8 (count, 1, 16, 16), of random font, size, place and shades, and which letters (count,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(LETTERS)
    pictures = [_glyph(LETTERS[label], rng) for label in labels]
    order = rng.permutation(count)
    return torch.from_numpy(np.stack(pictures)[order][:, None]), torch.from_numpy(labels[order])


def _glyph(letter: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    paper, ink = sorted(rng.uniform(0, 255, 2)) if rng.random() < 0.5 else sorted(rng.uniform(0, 255, 2))[::-1]
    ink += 60 if ink > paper else -60
    picture = Image.new("L", (SIDE, SIDE), 0)
    place = tuple(SIDE / 2 + rng.uniform(-1.5, 1.5, 2))
    font = _font(FONTS[rng.integers(len(FONTS))], int(rng.integers(11, 16)))
    ImageDraw.Draw(picture).text(place, letter, 255, font, "mm")
    mixed = paper + (ink - paper) * np.asarray(picture, np.float64) / 255 + rng.normal(0, 4, (SIDE, SIDE))
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def torn(images: Tensor, block: int = 2) -> Tensor:
    """``images`` (N, C, H, W) whose coarsest band is cut into blocks, which change places; all detail is left."""
    bands = _bands(images)
    low = bands[Band(LEVELS, "LL")]
    count, channels, side, _ = low.shape
    cells = side // block
    parts = low.reshape(count, channels, cells, block, cells, block).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(count, cells**2).argsort(dim=1)[:, :, None, None, None].expand_as(parts)
    moved = parts.gather(1, order).reshape(count, cells, cells, channels, block, block).permute(0, 3, 1, 4, 2, 5)
    bands[Band(LEVELS, "LL")] = moved.reshape(low.shape)
    return _pixels(bands, images)


def textures(images: Tensor) -> Tensor:
    """Images whose coefficients are those of ``images`` (N, C, H, W), each from another image at the same place."""
    bands = {}
    for band, values in _bands(images).items():
        order = torch.rand(len(values), *values.shape[2:]).argsort(dim=0)[:, None].expand_as(values)
        bands[band] = values.gather(0, order)
    return _pixels(bands, images)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Grey ``images`` (N, 1, H, W) as they come out of a JPEG."""
    rows = []
    for image in images[:, 0].numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        rows.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(rows)[:, None])


def _bands(images: Tensor) -> dict[Band, Tensor]:
    """The bands that make up ``images`` (N, C, H, W), without the low ones between."""
    bands = parse_transform("dwt:haar", LEVELS).analyse(images.float())
    return {band: values for band, values in bands.items() if band.orientation != "LL" or band.level == LEVELS}


def _pixels(bands: dict[Band, Tensor], images: Tensor) -> Tensor:
    whole = parse_transform("dwt:haar", LEVELS).synthesise(bands, (images.shape[2], images.shape[3]))
    return whole.round().clamp(0, 255).to(torch.uint8)
