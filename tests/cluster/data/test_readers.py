"""Readers of shards: whatever their number, wherever they read, whenever they are killed, the same batches come."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster.data.quarantine import Quarantine
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import ShardSet
from cluster.run.data_source import open_source
from cluster.storage.folder import open_folder
from tests.support.reading import BATCH, batch_bytes, open_and_tell, opened, read_for
from tests.support.runs import tiny_run_settings, trained
from tests.support.s3_server import BUCKET
from tests.support.shards import shard_members, write_tar

BATCHES, MOST_READERS = 30, 7


class Reader:
    """One of them, started anew where it has died."""

    def __init__(self, index: ShardSet) -> None:
        self.index = index
        self.start()

    def start(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=read_for, args=(other, self.index), daemon=True)
        self.process.start()
        other.close()

    def batch(self, step: int) -> Any:
        while True:
            try:
                self.pipe.send(step)
                return self.pipe.recv()
            except (EOFError, OSError):
                self.end()
                self.start()

    def kill(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> list[ShardSet]:
    """The same shards on a disk and in a bucket: two nodes that read from different places."""
    folder = tmp_path_factory.mktemp("readers")
    for number in range(5):
        write_tar(folder / f"{number:05d}.tar", shard_members(number, 8 + number))
    index_shards(str(folder))
    bucket = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in folder.iterdir():
        bucket.upload(path, path.name)
    return [build_index(str(folder)), build_index(bucket.url)]


@pytest.fixture(scope="module")
def right(copies: list[ShardSet]) -> list[Any]:
    """What one reader that is never disturbed gives, over several epochs."""
    epochs = BATCHES * BATCH / copies[0].sample_count
    assert epochs > 3
    with opened(copies[0]) as ingest:
        return [batch_bytes(ingest, step) for step in range(BATCHES)]


def read_in_turns(copies: list[ShardSet], steps: range, readers: int, rng: random.Random) -> Iterator[Any]:
    """The batches of ``steps`` by so many readers, of which one is killed now and then, asked for or about to be."""
    group = [Reader(copies[number % len(copies)]) for number in range(readers)]
    try:
        for step in steps:
            if rng.random() < 0.15:
                rng.choice(group).kill()
            yield group[step % readers].batch(step)
    finally:
        for reader in group:
            reader.end()


def test_a_reader_of_a_training_takes_no_torch(small_shards: Path, tmp_path: Path) -> None:
    """It would take seconds and 300 MB of every process that only reads."""
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    quarantine = Quarantine(open_folder(settings.run), settings.max_damaged)
    context = mp.get_context("spawn")
    pipe, other = context.Pipe()
    reader_factory = open_source(settings, quarantine).reader_factory()
    process = context.Process(target=open_and_tell, args=(other, reader_factory), daemon=True)
    process.start()
    assert pipe.recv() is False
    process.join()


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
def test_any_number_of_readers_any_cut_any_kill(seed: int, copies: list[ShardSet], right: list[Any]) -> None:
    rng = random.Random(seed)
    cuts = [0, rng.randrange(1, BATCHES), BATCHES]
    delivered = [
        batch
        for first, last in pairwise(cuts)
        for batch in read_in_turns(copies, range(first, last), rng.randint(1, MOST_READERS), rng)
    ]
    assert delivered == right


@pytest.mark.long
def test_the_object_store_does_not_spill(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    """As many batches as are read ahead by default, and all that is kept for replays."""
    import ray
    from ray._private.internal_api import memory_summary

    settings = tiny_run_settings(tmp_path / "run", small_shards, executor="ray", max_steps=40)
    trained(settings)
    summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    assert "Plasma memory usage" in summary
    assert "Spilled" not in summary
