"""The verdict on the bytes of a shard: sound, damaged, or another object."""

from __future__ import annotations

import hashlib
import mmap
import zlib

import pytest

from cluster.data.shard_index import DamagedError
from cluster.data.shard_store import UnusableError, check_shard
from cluster.data.shards import Sample, Shard

CONTENT = b"header" + b"image" + b"padding"
SAMPLE = Sample("a", "a.png", 6, 5, None, zlib.crc32(b"image"))
SHARD = Shard("s3://bucket/a.tar", len(CONTENT), (SAMPLE,), hashlib.sha256(CONTENT).hexdigest())


def memory(content: bytes) -> mmap.mmap | None:
    if not content:
        return None
    data = mmap.mmap(-1, len(content))
    data.write(content)
    return data


def never_asked() -> int:
    pytest.fail("the size of an object was asked for whose bytes are sound")


def test_sound_bytes_cost_no_further_question() -> None:
    verdict = check_shard(SHARD, memory(CONTENT), never_asked)
    assert verdict.error is None
    assert not verdict.is_replaced


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", f"0 of {len(CONTENT)} bytes came"),
        (CONTENT[:-1], f"{len(CONTENT) - 1} of {len(CONTENT)} bytes came"),
        (CONTENT.replace(b"image", b"imagf"), "a.png at offset 6 is not what was indexed"),
        (CONTENT.replace(b"pad", b"pat"), "a header, label or padding is not what was indexed"),
    ],
)
def test_other_bytes_of_an_object_of_the_indexed_size_are_damage(content: bytes, fault: str) -> None:
    verdict = check_shard(SHARD, memory(content), lambda: SHARD.size_bytes)
    assert isinstance(verdict.error, DamagedError)
    assert fault in str(verdict.error)
    assert not verdict.is_replaced


@pytest.mark.parametrize("content", [b"", CONTENT[:3], CONTENT + b"more"])
def test_an_object_of_another_size_was_replaced(content: bytes) -> None:
    verdict = check_shard(SHARD, memory(content), lambda: len(content))
    assert isinstance(verdict.error, UnusableError)
    assert f"has {len(content)} bytes, but had {len(CONTENT)} when it was indexed" in str(verdict.error)
    assert verdict.is_replaced
