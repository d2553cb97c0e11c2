"""A style transferred band by band, from stored pixels to stored pixels, where a mask is white."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError
from freqgan.generation.band_style import band_deviation, edge_correlation, transfer_bands
from freqgan.generation.style_options import TRANSFORM, StyleOptions
from freqgan.pixels import from_pixels, to_pixels
from freqgan.transforms import parse_transform

Advance = Callable[[int, int], None]


class Styled(NamedTuple):
    """A result, stored pixels (1, C, H, W), and what can be said of it."""

    pixels: Tensor
    text: str


def style_by_bands(
    options: StyleOptions, content: Tensor, style: Tensor, mask: Tensor | None, advance: Advance
) -> Styled:
    """Return the stored pixels (1, C, H, W) of ``content`` with the bands of ``style``.

    Args:
        options: of the method bands.
        content: stored pixels (1, C, H, W).
        style: stored pixels (1, C, h, w).
        mask: (1, 1, H, W) in [0, 1], 1 where the style goes; everywhere if it is None.
        advance: is told the progress.

    Raises:
        InputError: a strength of a level that images of these sizes do not have.

    """
    strengths = options.strengths
    before, texture = _alike(content, style)
    levels = _levels(options, before, texture)
    transform = parse_transform(options.transform or TRANSFORM, levels)
    result = transfer_bands(
        before, texture, transform, strength=strengths.of, mask=mask, seed=options.seed or 0, advance=advance
    )
    image = blended(before, result, mask)
    text = f"edges correlate with the content's by {edge_correlation(before, image):.2f}"
    depth: BitDepth = 16 if content.dtype == torch.uint16 and image.shape[1] == 1 else 8
    stored = to_pixels(image, depth)
    if strengths.is_full and mask is None:
        deviation = band_deviation(from_pixels(stored).double(), texture, transform)
        text += f"; energy of every band within {100 * deviation:.1f} % of the style's"
    return Styled(stored, text)


def _levels(options: StyleOptions, before: Tensor, texture: Tensor) -> int:
    """Return the levels for both; InputError where a strength is given for one beyond them."""
    sizes = [(x.shape[-2], x.shape[-1]) for x in (before, texture)]
    levels = options.levels_for(*sizes)
    if unknown := [level for level, _ in options.strengths.of_level if level > levels]:
        raise InputError(
            f"--strength {unknown[0]}=...: images of {' and '.join(f'{w} x {h}' for h, w in sizes)} pixels are "
            f"taken apart into {levels} levels; name one of them, or give --levels"
        )
    return levels


def _alike(content: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as float64 in [-1, 1], (1, C, H, W) with as many channels as the one that has more."""
    channels = max(content.shape[1], style.shape[1])
    before, texture = (from_pixels(x).double().expand(-1, channels, -1, -1) for x in (content, style))
    return before, texture


def style_mask(white: Tensor, own_name: str, content: Tensor, name: str) -> Tensor:
    """Return a mask (1, 1, H, W) in [0, 1] of stored pixels ``white`` (1, C, H, W), for ``content`` (1, C, H, W).

    Raises:
        InputError: the sizes differ, or it is black everywhere; the image is called ``name``, the mask ``own_name``.

    """
    (height, width), (own_height, own_width) = content.shape[-2:], white.shape[-2:]
    if (height, width) != (own_height, own_width):
        raise InputError(
            f"{own_name} has {own_width} x {own_height} pixels, and {name} {width} x {height}: make them equal"
        )
    mask = (from_pixels(white).double().mean(dim=1, keepdim=True) + 1) / 2
    if not mask.any():
        raise InputError(f"{own_name} is black everywhere, so the style goes nowhere: paint white where it is to go")
    return mask


def blended(content: Tensor, result: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``result`` (1, C, H, W) where the mask is white, and ``content`` where it is black."""
    return result if mask is None else torch.lerp(content, result, mask.to(content.dtype))
