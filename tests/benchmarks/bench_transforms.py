"""Transforms beside PyWavelets, the PyTorch Wavelet Toolbox and SciPy: three levels, one thread.

All are timed in turns, and again in another pass a minute later: a busy neighbour of a core stays for seconds.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pywt
import scipy.fft
import torch
from ptwt.conv_transform_2 import wavedec2, waverec2
from torch import Tensor

from freqgan.bands import Band, all_bands
from freqgan.transforms import parse_transform
from tests.benchmarks.harness import Comparison, minima_s

SHAPES = ((64, 3, 64, 64), (16, 3, 256, 256))
WAVELETS = ("haar", "db4", "bior4.4")
SPECTRAL = ("dct", "fft:shannon", "fft:meyer")
LEVELS = 3
PASSES = 3
HOW = "one CPU thread, minimum of 63 calls in turns"
Work = Callable[[], object]


@dataclass
class GanTrainer:
    """Works that are timed in turns, and what their shortest times say, in seconds in the same order."""

    works: list[Work]
    outcome: Callable[[list[float]], Iterator[Comparison]]
    shortest_s: list[float] = field(default_factory=list)

    def run(self) -> None:
        times_s = minima_s(self.works)
        self.shortest_s = [min(pair) for pair in zip(self.shortest_s or times_s, times_s, strict=True)]


def comparisons() -> list[Comparison]:
    """Forward and inverse against each peer, and against a plain copy of the image; milliseconds, less is better."""
    contests: list[GanTrainer] = []
    with _one_thread(), torch.no_grad():
        for shape in SHAPES:
            images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            for wavelet in WAVELETS:
                contests += _of_one(images, wavelet)
            contests += [_spectral(images, spec) for spec in SPECTRAL]
        for _ in range(PASSES):
            for contest in contests:
                contest.run()
    return [comparison for contest in contests for comparison in contest.outcome(contest.shortest_s)]


def _spectral(images: Tensor, spec: str) -> GanTrainer:
    """Against SciPy's transforms of the same data: to frequencies and back, which is what a bank does."""
    ours = _ours(images, spec)
    pixels = images.numpy()
    if spec == "dct":
        there = partial(scipy.fft.dctn, axes=(-2, -1), norm="ortho")
        back = partial(scipy.fft.idctn, axes=(-2, -1), norm="ortho")
    else:
        there, back = scipy.fft.rfft2, scipy.fft.irfft2
    spectrum = there(pixels)
    size = "x".join(map(str, images.shape))

    def outcome(times_s: list[float]) -> Iterator[Comparison]:
        *ours_s, there_s, back_s = times_s
        for seconds, direction in zip(ours_s, ("forward", "inverse"), strict=True):
            for peer, peer_s in (("scipy.fft there and back", there_s + back_s), ("scipy.fft there", there_s)):
                yield Comparison(
                    name=f"transform {spec} {direction} {size} against {peer}",
                    ours=seconds * 1e3,
                    peer=peer_s * 1e3,
                    unit="ms",
                    higher_is_better=False,
                    how=f"float32, ours {LEVELS} levels, the peer one transform, {HOW}",
                )

    return GanTrainer([*ours, lambda: there(pixels), lambda: back(spectrum)], outcome)


def _of_one(images: Tensor, wavelet: str) -> Iterator[GanTrainer]:
    pairs = {"ours": _ours(images, f"dwt:{wavelet}"), "pywt": _pywt(images, wavelet), "ptwt": _ptwt(images, wavelet)}
    size = "x".join(map(str, images.shape))
    for turn, direction in enumerate(("forward", "inverse")):
        works = {name: pair[turn] for name, pair in pairs.items()} | {"copy": images.clone}
        name = f"transform {wavelet} {direction} {size}"
        yield GanTrainer(list(works.values()), partial(_beside, name, tuple(works)))


def _beside(name: str, contestants: tuple[str, ...], times_s: list[float]) -> Iterator[Comparison]:
    """The first of the contestants, which is ours, beside each of the others."""
    for peer, peer_s in zip(contestants[1:], times_s[1:], strict=True):
        yield Comparison(
            name=f"{name} against {peer}",
            ours=times_s[0] * 1e3,
            peer=peer_s * 1e3,
            unit="ms",
            higher_is_better=False,
            how=f"float32, {LEVELS} levels, periodic borders, {HOW}",
        )


def _ours(images: Tensor, spec: str) -> tuple[Work, Work]:
    transform = parse_transform(spec, LEVELS)
    size = (images.shape[2], images.shape[3])
    # Without the finer low bands, so that the inverse goes through all levels as the peers' does.
    wanted = [band for band in all_bands(LEVELS) if band.orientation != "LL" or band == Band(LEVELS, "LL")]
    analysed = transform.analyse(images)
    sub_images = {band: analysed[band] for band in wanted}
    return lambda: transform.analyse(images), lambda: transform.synthesise(sub_images, size)


def _pywt(images: Tensor, wavelet: str) -> tuple[Work, Work]:
    pixels = images.numpy()

    def forward() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filters longer than the coarsest side, which is meant here
            return pywt.wavedec2(pixels, wavelet, mode="periodization", level=LEVELS)

    coefficients = forward()
    return forward, lambda: pywt.waverec2(coefficients, wavelet, mode="periodization")


def _ptwt(images: Tensor, wavelet: str) -> tuple[Work, Work]:
    coefficients = wavedec2(images, wavelet, mode="periodic", level=LEVELS)
    return (
        lambda: wavedec2(images, wavelet, mode="periodic", level=LEVELS),
        lambda: waverec2(coefficients, wavelet),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for comparison in comparisons():
        line = f"{comparison.name:62} {comparison.ours:8.2f} {comparison.peer:8.2f} ms {comparison.ratio:7.2f} x"
        sys.stdout.write(line + "\n")
