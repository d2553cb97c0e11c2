"""Strips a second from shards of clips, and arrays of 12 channels, beside webdataset's own decoders.

Clips are 16 frames of 64 x 64 pixels of windows that move over photographs, as JPEG and as PNG; arrays are 64 x 64 x 12
of 16 bits. The index has sizes and checksums, all checked; the peer checks nothing, gives strips as they lie in the
tar, and does not know that they are clips. Rates are of one process, the best of three.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.data.packing import pack
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.formats.source_format import PieceOptions
from tests.benchmarks.bench_ingest import BATCH, ROUNDS, SECONDS, rate
from tests.benchmarks.harness import Comparison

FRAMES, SIDE, CHANNELS, COUNT = 16, 64, 12, 400
SHARD_SAMPLES = 100
KINDS = {
    "jpg": ImagePolicy(SIDE, frames=FRAMES),
    "png": ImagePolicy(SIDE, frames=FRAMES),
    "image.npy": ImagePolicy(SIDE, channels=CHANNELS, bit_depth=16),
}
"""Samples by the extension of their images, and how they are read."""


def ours(kind: str, folder: str, side: int, number: int, count: int) -> Iterator[int]:
    """Batches in turns with the other processes, checked against the index."""
    with BatchReader(build_index(folder), KINDS[kind], 0, DataSettings()) as ingest:
        step = number
        while True:
            ingest.batch(step * BATCH, BATCH)
            step += count
            yield BATCH


def webdataset(kind: str, folder: str, side: int, number: int, count: int) -> Iterator[int]:
    """Its own shards each; decoded as in its documentation."""
    import webdataset as wds

    shards = [str(path) for path in sorted(Path(folder).glob("*.tar"))][number::count]
    how = () if kind == "image.npy" else ("rgb8",)
    while True:
        for _ in wds.WebDataset(shards, shardshuffle=False).decode(*how).to_tuple(kind):
            yield 1


def clips() -> Iterator[NDArray[np.uint8]]:
    """Clips (T, H, W, 3) of windows that move straight over photographs."""
    import skimage.data

    rng = np.random.default_rng(0)
    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    for number in range(COUNT):
        photograph = photographs[number % len(photographs)]
        room = np.array(photograph.shape[:2]) - SIDE
        ends = rng.integers(0, room, 2), rng.integers(0, room, 2)
        step = (ends[1] - ends[0]).clip(-4 * FRAMES, 4 * FRAMES) / FRAMES
        places = [(ends[0] + step * frame).round().astype(int) for frame in range(FRAMES)]
        yield np.stack([photograph[top : top + SIDE, left : left + SIDE] for top, left in places])


def packed(folder: Path, kind: str) -> str:
    """Shards with an index."""
    source, shards = folder / f"in-{kind}", folder / kind
    source.mkdir()
    rng = np.random.default_rng(0)
    for number, clip in enumerate(clips()):
        if kind == "image.npy":
            noise = rng.integers(0, 1000, (SIDE, SIDE, CHANNELS))
            clip = (clip[:4].transpose(1, 2, 0, 3).reshape(SIDE, SIDE, CHANNELS) * np.uint16(200) + noise).astype(
                np.uint16
            )
        np.save(source / f"{number:04d}.npy", clip)
    options = (
        PieceOptions() if kind == "image.npy" else PieceOptions(frames=FRAMES, quality=90 if kind == "jpg" else None)
    )
    pack(str(source), str(shards), shard_samples=SHARD_SAMPLES, options=options)
    return str(shards)


def comparisons() -> Iterable[Comparison]:
    """JPEG and PNG strips, and arrays."""
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            shards = packed(Path(temporary), kind)
            found = [rate(partial(reader, kind), shards, SIDE, 1) for reader in (ours, webdataset)]
            what = f"{SIDE} px, {CHANNELS} channels" if kind == "image.npy" else f"{FRAMES} x {SIDE} px"
            how = f"best of {ROUNDS} x {SECONDS:g} s"
            yield Comparison(f"{kind}, {what} / webdataset", found[0], found[1], "samples/s", True, how)
