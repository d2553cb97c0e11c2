"""A process that reads batches when asked; it imports little, so that many can be started and killed."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing.connection import Connection

from cluster.images import ImagePolicy
from cluster.ingest import DataSettings, Ingest
from cluster.shards import ShardIndex

BATCH = 7


def opened(index: ShardIndex) -> Ingest:
    """A reader of ``index`` with crops and an order of its own in every epoch."""
    return Ingest(index, ImagePolicy(size=8, crop="random"), 3, DataSettings(crop="random", shuffle_shards=2))


def batch_bytes(ingest: Ingest, step: int) -> tuple[bytes, bytes]:
    """Images and labels of the batch number ``step``."""
    batch = ingest.batch(step * BATCH, BATCH)
    return batch.images.tobytes(), batch.labels.tobytes()


def read_for(pipe: Connection, index: ShardIndex) -> None:
    """Answers every number with that batch, until nobody asks any more."""
    with opened(index) as ingest, suppress(EOFError):
        while True:
            pipe.send(batch_bytes(ingest, pipe.recv()))
