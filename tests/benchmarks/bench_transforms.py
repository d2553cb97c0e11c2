"""Transforms beside PyWavelets, the PyTorch Wavelet Toolbox and SciPy: three levels, one thread."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
Work = Callable[[], object]


def comparisons() -> list[Comparison]:
    """Forward and inverse against each peer, and against a plain copy of the image; milliseconds, less is better."""
    found: list[Comparison] = []
    with _one_thread(), torch.no_grad():
        for shape in SHAPES:
            images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            for wavelet in WAVELETS:
                found += _of_one(images, wavelet)
            for spec in SPECTRAL:
                found += _spectral(images, spec)
    return found


def _spectral(images: Tensor, spec: str) -> Iterator[Comparison]:
    """Against SciPy's transforms of the same data: to frequencies and back, which is what a bank does."""
    ours = _ours(images, spec)
    pixels = images.numpy()
    if spec == "dct":
        there = partial(scipy.fft.dctn, axes=(-2, -1), norm="ortho")
        back = partial(scipy.fft.idctn, axes=(-2, -1), norm="ortho")
    else:
        there, back = scipy.fft.rfft2, scipy.fft.irfft2
    spectrum = there(pixels)
    *ours_s, there_s, back_s = minima_s([*ours, lambda: there(pixels), lambda: back(spectrum)])
    there_ms, back_ms = there_s * 1e3, back_s * 1e3
    size = "x".join(map(str, images.shape))
    for seconds, direction in zip(ours_s, ("forward", "inverse"), strict=True):
        for peer, peer_ms in (("scipy.fft there and back", there_ms + back_ms), ("scipy.fft there", there_ms)):
            yield Comparison(
                name=f"transform {spec} {direction} {size} against {peer}",
                ours=seconds * 1e3,
                peer=peer_ms,
                unit="ms",
                higher_is_better=False,
                how=f"float32, ours {LEVELS} levels, the peer one transform, one CPU thread, minimum of 42, in turns",
            )


def _of_one(images: Tensor, wavelet: str) -> Iterator[Comparison]:
    pairs = {"ours": _ours(images, f"dwt:{wavelet}"), "pywt": _pywt(images, wavelet), "ptwt": _ptwt(images, wavelet)}
    size = "x".join(map(str, images.shape))
    for turn, direction in enumerate(("forward", "inverse")):
        works = {name: pair[turn] for name, pair in pairs.items()} | {"copy": images.clone}
        times_ms = {name: 1e3 * s for name, s in zip(works, minima_s(list(works.values())), strict=True)}
        for peer in list(works)[1:]:
            yield Comparison(
                name=f"transform {wavelet} {direction} {size} against {peer}",
                ours=times_ms["ours"],
                peer=times_ms[peer],
                unit="ms",
                higher_is_better=False,
                how=f"float32, {LEVELS} levels, periodic borders, one CPU thread, minimum of 42 calls in turns",
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
