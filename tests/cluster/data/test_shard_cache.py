"""Copies of shards on a local disk: used, checked, bounded, shared, and whole after any kill."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.data.quarantine import DamageFoundError
from cluster.data.shard_cache import ShardCache
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import ShardSet
from cluster.run.data_source import open_source
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError
from tests.support.reading import BATCHES, batch_bytes, batches, opened, read_over_and_over
from tests.support.runs import tiny_run_settings
from tests.support.s3_server import BUCKET
from tests.support.shards import shard_members, write_tar

CONTEXT = mp.get_context("spawn")


@pytest.fixture
def bucket(tmp_path: Path, s3_server: str) -> Folder:
    """Five shards and their index."""
    for number in range(5):
        write_tar(tmp_path / "data" / f"{number:05d}.tar", shard_members(number, 8 + number))
    index_shards(str(tmp_path / "data"))
    bucket = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in (tmp_path / "data").iterdir():
        bucket.upload(path, path.name)
    return bucket


def taken_bytes(folder: Path, ending: str = "") -> int:
    """Bytes of its files; readers that run meanwhile may remove one between its listing and its look-up."""
    taken = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            taken += path.stat().st_size if path.name.endswith(ending) else 0
    return taken


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("lock-"))


def test_a_second_reader_needs_no_bucket(bucket: Folder, tmp_path: Path) -> None:
    index, cache = build_index(bucket.url), ShardCache(tmp_path / "cache", 2**20)
    right = batches(index)
    assert batches(index, cache) == right
    assert kept(cache.folder) == sorted(f"{shard.sha256}.tar" for shard in index.shards)
    for shard in index.shards:
        bucket.delete(shard.url.rpartition("/")[2])
    assert batches(index, cache) == right


def test_a_damaged_copy_is_fetched_again(bucket: Folder, tmp_path: Path) -> None:
    index, cache = build_index(bucket.url), ShardCache(tmp_path / "cache", 2**20)
    right = batches(index, cache)
    first, second, third = (cache.folder / name for name in kept(cache.folder)[:3])
    whole = [path.read_bytes() for path in (first, second, third)]
    first.write_bytes(whole[0][:700] + b"x" + whole[0][701:])
    second.write_bytes(whole[1][:-1])
    third.write_bytes(b"")
    assert batches(index, cache) == right
    assert [path.read_bytes() for path in (first, second, third)] == whole


def test_a_damaged_object_is_not_kept(bucket: Folder, tmp_path: Path) -> None:
    index, cache = build_index(bucket.url), ShardCache(tmp_path / "cache", 2**20)
    right = batches(index)
    bucket.write("00000.tar", bucket.read("00000.tar")[:-512])
    with opened(index, cache) as ingest, pytest.raises(InputError, match=r"00000\.tar has \d+ bytes, but had"):
        ingest.batch(0, index.sample_count)
    with opened(index, cache, most_damaged=1) as ingest:
        with pytest.raises(DamageFoundError) as found:
            ingest.batch(0, index.sample_count)
        ingest.leave_out(found.value.found)  # all of its images are whole
        assert [batch_bytes(ingest, step) for step in range(BATCHES)] == right
    assert f"{index.shards[0].sha256}.tar" not in kept(cache.folder)
    assert len(kept(cache.folder)) == 4


@pytest.mark.parametrize("shards", [0, 1, 2, 3])
def test_it_never_takes_more(bucket: Folder, tmp_path: Path, shards: int) -> None:
    index = build_index(bucket.url)
    limit = shards * max(shard.size_bytes for shard in index.shards)
    cache = ShardCache(tmp_path / "cache", limit)
    right = batches(index)
    with opened(index, cache) as ingest:
        for step in range(BATCHES):
            assert batch_bytes(ingest, step) == right[step]
            assert taken_bytes(cache.folder, ".tar") <= limit
    assert len(kept(cache.folder)) >= shards


class Reader:
    """A process that reads all batches over and over."""

    def __init__(self, index: ShardSet, cache: ShardCache, right: list[tuple[bytes, bytes]]) -> None:
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=read_over_and_over, args=(other, index, cache, right), daemon=True)
        self.process.start()
        assert self.pipe.recv() == "begins"

    def kill(self) -> int:
        """Ends it; how often it had read all of them."""
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        told = []
        while self.pipe.poll():
            with suppress(EOFError):
                told.append(self.pipe.recv())
                continue
            break
        assert set(told) <= {"right"}
        return len(told)


def test_several_readers_that_are_killed(bucket: Folder, tmp_path: Path) -> None:
    index, rng = build_index(bucket.url), random.Random(0)
    limit = sum(shard.size_bytes for shard in index.shards[:3])
    cache = ShardCache(tmp_path / "cache", limit)
    right = batches(index)
    readers = [Reader(index, cache, right) for _ in range(3)]
    rounds = 0
    try:
        for _ in range(6):
            time.sleep(rng.uniform(0, 0.7))
            rounds += readers.pop(rng.randrange(3)).kill()
            readers.append(Reader(index, cache, right))
            assert taken_bytes(cache.folder, ".tar") <= limit
    finally:
        rounds += sum(reader.kill() for reader in readers)
    assert rounds > 0
    (cache.folder / f".{'0' * 64}.part").write_bytes(b"of a process that has died")
    assert batches(index, cache) == right
    assert taken_bytes(cache.folder) <= limit
    assert all(name.endswith(".tar") for name in kept(cache.folder))


def test_settings(bucket: Folder, tmp_path: Path) -> None:
    def settings(cache: str) -> RunSettings:
        return tiny_run_settings(tmp_path / "run", bucket.url, image_size=8, shard_cache=cache)

    with open_source(settings(str(tmp_path / "cache"))).ingest() as ingest:
        ingest.batch(0, 50)
    assert len(kept(tmp_path / "cache")) == 5
    with pytest.raises(InputError, match=r"shard_cache s3://b/c: copies are kept on a local disk"):
        open_source(settings("s3://b/c")).ingest()
    (tmp_path / "file").write_bytes(b"")
    with (
        open_source(settings(str(tmp_path / "file"))).ingest() as ingest,
        pytest.raises(InputError, match=r"shard_cache: .*/file cannot be used \(File exists\); name a folder"),
    ):
        ingest.batch(0, 1)
