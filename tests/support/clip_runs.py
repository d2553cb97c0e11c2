"""Small runs of clips, of volumes and of images of many channels, and the shards that they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster.data.packing import pack
from cluster.formats.source_format import PieceOptions
from tests.support.runs import tiny_run_settings, trained
from tests.support.serving import FLOWS

FRAMES, SIDE, BANDS = 4, 16, 5
RANGE = (-1024.0, 3071.0)
CLIPS: dict[str, Any] = {"frames": FRAMES, "time_levels": 1, "noise": {"dimensions": 64}}
VOLUMES = CLIPS | {"channels": 1, "bit_depth": 16}
MANY: dict[str, Any] = {"channels": BANDS, "bit_depth": 32, "value_range": RANGE, "shown_channels": (4, 2, 0)}


def write_small_clips(folder: Path, count: int = 32) -> Path:
    """Shards of clips of four frames in which an edge moves by up to two pixels a frame, over a ramp."""
    rng = np.random.default_rng(0)
    for number in range(count):
        (folder / "videos" / f"{number:03d}").mkdir(parents=True)
        place, speed, colour = rng.integers(4, 12), rng.integers(-2, 3), rng.uniform(0, 255, 3)
        back = np.outer(np.linspace(0, 1, SIDE), np.ones(SIDE))[..., None] * rng.uniform(60, 200, 3)
        for frame in range(FRAMES):
            picture = back.copy()
            picture[:, max(place + speed * frame, 1) :] = colour
            image = Image.fromarray(picture.astype(np.uint8))
            image.save(folder / "videos" / f"{number:03d}" / f"{frame:02d}.png")
    pack(str(folder / "videos"), str(folder / "clips"), options=PieceOptions(frames=FRAMES))
    return folder / "clips"


def write_small_volumes(folder: Path, count: int = 32) -> Path:
    """Shards of volumes of four slices, 16 bits: a ball on a ramp."""
    rng = np.random.default_rng(1)
    (folder / "arrays").mkdir(parents=True)
    z, y, x = np.mgrid[0:FRAMES, 0:SIDE, 0:SIDE]
    for number in range(count):
        centre, value = rng.uniform(5, 11, 2), rng.uniform(20_000, 60_000)
        inside = (2 * (z - 1.5)) ** 2 + (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 25
        np.save(folder / "arrays" / f"{number:03d}.npy", (inside * value + 300 * x + 100 * z).astype(np.uint16))
    pack(str(folder / "arrays"), str(folder / "volumes"), options=PieceOptions(frames=FRAMES))
    return folder / "volumes"


def write_many_channels(folder: Path, count: int = 32) -> Path:
    """Shards of images of five channels of float32, in the range of a CT."""
    rng = np.random.default_rng(2)
    (folder / "spectra").mkdir(parents=True)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for number in range(count):
        slopes = rng.uniform(-100, 100, (BANDS, 2))
        planes = [a * x + b * y + 500 * band for band, (a, b) in enumerate(slopes)]
        values = np.stack(planes, axis=2).clip(*RANGE).astype(np.float32)
        np.save(folder / "spectra" / f"{number:03d}.npy", values)
    pack(str(folder / "spectra"), str(folder / "many"))
    return folder / "many"


def clip_run(folder: Path, shards: Path, **changes: Any) -> Path:
    """A run of two steps of flow experts, of the clips in ``shards``; its folder."""
    trained(tiny_run_settings(folder, shards, **{"max_steps": 2, **CLIPS, **FLOWS, **changes}))
    return folder


def write_runs(folder: Path) -> dict[str, Path]:
    """Runs of clips, of volumes and of images of many channels, by these names."""
    return {
        "clips": clip_run(folder / "clips", write_small_clips(folder / "a")),
        "volumes": clip_run(folder / "volumes", write_small_volumes(folder / "b"), **VOLUMES),
        "many": many_run(folder / "many", write_many_channels(folder / "c")),
    }


def many_run(folder: Path, shards: Path, **changes: Any) -> Path:
    """A run of two steps of flow experts, of the images of five channels in ``shards``; its folder."""
    trained(tiny_run_settings(folder, shards, **{"max_steps": 2, **MANY, **FLOWS, **changes}))
    return folder
