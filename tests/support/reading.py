"""A process that reads batches when asked; it imports little, so that many can be started and killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_cache import ShardCache
from cluster.data.shards import ShardSet

BATCH = 7
BATCHES = 20


def opened(index: ShardSet, cache: ShardCache | None = None, most_damaged: int | None = None) -> BatchReader:
    """A reader of ``index`` with crops and an order of its own in every epoch."""
    policy, settings = ImagePolicy(size=8, crop="random"), DataSettings(crop="random", shuffle_shards=2)
    return BatchReader(index, policy, 3, settings, most_damaged=most_damaged, cache=cache)


def batch_bytes(ingest: BatchReader, step: int) -> tuple[bytes, bytes]:
    """Images and labels of the batch number ``step``."""
    batch = ingest.batch(step * BATCH, BATCH)
    return batch.images.tobytes(), batch.targets.tobytes()


def read_for(pipe: Connection, index: ShardSet) -> None:
    """Answers every number with that batch, until nobody asks any more."""
    with opened(index) as ingest, suppress(EOFError):
        while True:
            pipe.send(batch_bytes(ingest, pipe.recv()))


def batches(index: ShardSet, cache: ShardCache | None = None) -> list[tuple[bytes, bytes]]:
    """The first BATCHES of a reader of its own."""
    with opened(index, cache) as ingest:
        return [batch_bytes(ingest, step) for step in range(BATCHES)]


def read_over_and_over(pipe: Connection, index: ShardSet, cache: ShardCache, right: list[tuple[bytes, bytes]]) -> None:
    """Tells whenever it has read all batches whether they were ``right``."""
    pipe.send("begins")
    while True:
        pipe.send("right" if batches(index, cache) == right else "WRONG")


def open_and_tell(pipe: Connection, reader_factory: Callable[[], BatchReader]) -> None:
    """Opens a reader that was sent here; tells whether that took torch."""
    reader_factory().close()
    pipe.send("torch" in sys.modules)
