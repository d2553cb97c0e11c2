"""Photographs that packages carry in themselves, reduced to a size for tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

PLACES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "ihc": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


def photograph(name: str, longest_side: int) -> Image.Image:
    """One of PLACES in colour; the test is skipped where its package is not there."""
    package, path = PLACES[name]
    pytest.importorskip(package)
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).parent / path) as image:
        colour = image.convert("RGB")
    colour.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return colour


def as_tensor(image: Image.Image) -> Tensor:
    """float64 (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None].double() / 127.5 - 1
