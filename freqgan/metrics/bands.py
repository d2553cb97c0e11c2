"""Distances that know about bands: which band is wrong, and whether the bands belong to one image."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import HIGH_ORIENTATIONS, ORIENTATIONS, Band, Orientation
from freqgan.metrics.frechet import frechet_distance, total_variance
from freqgan.transforms import WaveletTransform

PACKET_SIDE = 8
CELLS = 4
QUANTISATION = 1 / 12
"""Variance of rounding to whole grey levels: log energies need not tell apart what uint8 cannot."""

Path = tuple[Orientation, ...]
LOW: Path = ("LL",)


def packet_distances(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return the Frechet distance per Haar wavelet packet, relative to the packet's real variance.

    Images (N, C, H, W) uint8, H and W multiples of a power of two, are split fully until packets have sides of at most
    8 pixels. "" is the mean over all packets; "HL1" and so on that over the packets inside that band, "LL<depth>" the
    coarsest packet's. Source: Veeramacheneni et al. (2025), without the weights of a network; the division is ours, so
    that faint bands count.
    """
    depth = _depth(reference, PACKET_SIDE)
    first, second = _packets(reference, depth), _packets(candidate, depth)
    distances: dict[Path, float] = {}
    for path, packet in first.items():
        x, y = packet.flatten(1), second[path].flatten(1)
        distances[path] = frechet_distance(x, y) / max(total_variance(x), QUANTISATION * x.shape[1])
    table = {"": _mean(list(distances.values()))}
    for level, orientation in itertools.product(range(depth, 0, -1), HIGH_ORIENTATIONS):
        inside: Path = LOW * (level - 1) + (orientation,)
        table[str(Band(level, orientation))] = _mean([d for p, d in distances.items() if p[:level] == inside])
    return table | {str(Band(depth, "LL")): distances[LOW * depth]}


def cross_band_distance(reference: Tensor, candidate: Tensor) -> float:
    """Return the Frechet distance of (N, C, H, W) images by their log band energies on a 4x4 grid.

    All bands and the small luminance are taken jointly.

    Bands that do not belong to one image leave every band's own distribution as it is, and change this one.
    """
    return frechet_distance(_energies(reference), _energies(candidate))


def _energies(images: Tensor) -> Tensor:
    """Return (N, F): the log mean square per level (of sides of at least 4), high band and cell; and 4x4 luminances."""
    levels = _depth(images, CELLS)
    transform = WaveletTransform("haar", levels)
    rows = []
    for chunk in torch.split(images, 1_000):
        bands = transform.analyse(chunk.float())
        cells = [
            functional.adaptive_avg_pool2d(bands[Band(level, o)].square().mean(dim=1, keepdim=True), CELLS)
            for level in range(levels, 0, -1)
            for o in HIGH_ORIENTATIONS
        ]
        luminance = functional.adaptive_avg_pool2d(chunk.float().mean(dim=1, keepdim=True), CELLS) / 64
        rows.append(torch.cat([(c + QUANTISATION).log() for c in cells] + [luminance], dim=1).flatten(1))
    return torch.cat(rows)


def _packets(images: Tensor, depth: int) -> dict[Path, Tensor]:
    """Return the 4^depth packets of (N, C, H, W) by the orientations that lead to them.

    The last row or column of images of odd sides is left out: what would complete it is not theirs.
    """
    transform = WaveletTransform("haar", 1)
    height, width = (side // 2 * 2 for side in images.shape[-2:])
    packets: dict[Path, Tensor] = {(): images[..., :height, :width].float()}
    for _ in range(depth):
        split: dict[Path, Tensor] = {}
        for path, packet in packets.items():
            quad = transform.analyse_level(packet)
            split |= {(*path, o): part for o, part in zip(ORIENTATIONS, quad, strict=True)}
        packets = split
    return packets


def _depth(images: Tensor, smallest: int) -> int:
    """Return how often sides are halved until the shorter is at most ``smallest``, as far as they stay whole.

    It is at least 1.
    """
    sides, depth = images.shape[-2:], 0
    while min(sides) >> depth > smallest and all((side >> depth) % 2 == 0 for side in sides):
        depth += 1
    return max(depth, 1)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
