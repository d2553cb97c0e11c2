"""Clips of 16 frames of 32 x 32 pixels: of videos, and of a window that moves over photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.formats.video import read_video

FRAMES, SIDE = 16, 32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "hubble_deep_field", "retina")
STRIDE = 4
"""Frames between the starts of clips of one place of a video."""
SHARES = (0.35, 0.6, 0.9)
"""Of the shorter side of a picture that a window has, at least and at most."""

Clip = NDArray[np.uint8]


def photographs() -> list[Clip]:
    """Return the photographs of scikit-image's package, (H, W, 3)."""
    import skimage.data

    found = []
    for name in PHOTOGRAPHS:
        try:
            picture = getattr(skimage.data, name)()
        except Exception:  # some are downloaded, which cannot be done everywhere
            continue
        found.append(np.ascontiguousarray(picture[..., :3]))
    return found


def pans(pictures: Sequence[Clip], count: int, rng: np.random.Generator) -> Iterator[Clip]:
    """Yield clips (16, 32, 32, 3) of a window that moves and zooms evenly over one of ``pictures``."""
    for number in range(count):
        picture = Image.fromarray(pictures[number % len(pictures)])
        least = min(picture.size)
        sides = least * rng.uniform(SHARES[0], SHARES[1], 2)
        sides[1] = sides[0] * rng.uniform(0.8, 1.25)  # a zoom of up to a quarter
        middles = np.empty((2, 2))
        for axis in (0, 1):
            half = sides.max() / 2
            start = rng.uniform(half, picture.size[axis] - half)
            far = sides.mean() * rng.uniform(-0.4, 0.4)
            middles[:, axis] = start, np.clip(start + far, half, picture.size[axis] - half)
        clip = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
        for t, share in enumerate(np.linspace(0, 1, FRAMES)):
            side, (x, y) = sides[0] + share * (sides[1] - sides[0]), middles[0] + share * (middles[1] - middles[0])
            box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            clip[t] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box))
        yield clip


def cuttings(videos: Sequence[Path], count: int, rng: np.random.Generator) -> Iterator[Clip]:
    """Yield clips (16, 32, 32, 3) of squares of ``videos``, at places and times that are drawn."""
    films = []
    for path in videos:
        with path.open("rb") as file:
            frames = [Image.fromarray(frame.pixels) for frame in read_video(file, path.name)]
        films.append(frames)
    for number in range(count):
        frames = films[number % len(films)]
        width, height = frames[0].size
        side = min(width, height) * rng.uniform(SHARES[1], SHARES[2])
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        first, step = 0, 2 if len(frames) >= 2 * FRAMES else 1
        first = int(rng.integers(0, len(frames) - step * (FRAMES - 1)))
        chosen = frames[first : first + step * FRAMES : step]
        box = (x, y, x + side, y + side)
        yield np.stack(
            [np.asarray(one.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box, reducing_gap=2.0)) for one in chosen]
        )
