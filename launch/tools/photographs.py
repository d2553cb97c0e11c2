"""Crops of the photographs that the scikit-image package carries in itself; every photograph is a class."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from freqgan.errors import InputError
from freqgan.seeds import derive_seed

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "gravel.png", "ihc.png")
SIZE = 64
CROPS_PER_PHOTOGRAPH = 750
MIN_DEVIATION = 15.0
"""Grey levels of 255; below it lie sky, blurred background and black: a crop that is nearly flat shows nothing."""

TRIES_PER_CROP = 20


def photograph_crops() -> Iterator[tuple[str, Image.Image]]:
    """Yield every crop with its class, the same crops every time.

    Raises:
        InputError: scikit-image or one of its photographs is not there.

    """
    for name in PHOTOGRAPHS:
        for crop in _crops(name):
            yield Path(name).stem, crop


def _photograph(name: str) -> Image.Image:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise InputError("the demo's photographs are those of scikit-image: pip install 'freqgan[demo]'")
    path = Path(next(iter(package.submodule_search_locations))) / "data" / name
    if not path.is_file():
        raise InputError(f"this version of scikit-image has no {name}: pip install 'scikit-image>=0.22'")
    with Image.open(path) as image:
        return image.convert("RGB")


def _crops(name: str) -> Iterator[Image.Image]:
    """Return up to CROPS_PER_PHOTOGRAPH crops at places that follow from the name alone."""
    photograph = _photograph(name)
    # Raw PCG64 output: NumPy promises never to change it, unlike the methods of its Generator.
    draws = iter(
        np.random.PCG64(derive_seed("demo", name)).random_raw(2 * CROPS_PER_PHOTOGRAPH * TRIES_PER_CROP).tolist()
    )
    taken = 0
    for left, top in zip(draws, draws, strict=True):
        x, y = left % (photograph.width - SIZE + 1), top % (photograph.height - SIZE + 1)
        crop = photograph.crop((x, y, x + SIZE, y + SIZE))
        if np.asarray(crop.convert("L")).std() >= MIN_DEVIATION:
            yield crop
            taken += 1
        if taken == CROPS_PER_PHOTOGRAPH:
            return
