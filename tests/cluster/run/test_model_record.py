"""Records of versions as files: keys, numbers that JSON has no word for, and what is damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cluster.run.model_record import Attempt, Verdict, VersionRecord, read_record
from cluster.run.model_registry import ModelRegistry
from freqgan.errors import InputError

SHARD = {"shard": "a.tar", "sha256": "00", "samples": 3}
RECORD: dict[str, Any] = {
    "format": 1, "number": 2, "finished_at": "2026-01-01T00:00:00Z", "finished_at_s": 1767225600.0,
    "name": "clothes", "from": 1, "begun_at_s": 1767220000.0, "code": "0.1",
    "data": {"url": "s3://bucket/data", "shards": [SHARD], "images": 3, "new_images": 3},
    "settings": {"levels": 2}, "step": 10, "images": 80, "digest": "ab", "held_out": "s3://bucket/held-out",
    "scores": {"sliced_wasserstein": math.nan, "spectrum_db": 1.5},
    "verdict": {"holds": False, "rows": [
        {"metric": "sliced_wasserstein", "candidate": math.nan, "current": None, "bound": None, "holds": False},
        {"metric": "spectrum_db", "candidate": 1.5, "current": math.inf, "bound": None, "holds": True},
    ]},
}  # fmt: skip
CURRENT: dict[str, Any] = {
    "version": 2, "epoch": 5, "stack": [1, 2], "log": [{"version": 2, "at_s": 1.0, "why": "promoted"}]
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    registry = ModelRegistry(str(tmp_path))
    registry.folder.write("versions/000002/model.json", json.dumps(RECORD).encode())
    registry.folder.write("CURRENT", json.dumps(CURRENT).encode())
    return registry


def without(values: dict[str, Any], *path: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(values))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


@pytest.mark.parametrize("extra", [{}, {"from_a_later_program": [1]}, {"settings": "levels: 2\n"}])
def test_a_record_is_written_as_it_was_read(extra: dict[str, object]) -> None:
    text = json.dumps(RECORD | extra, sort_keys=True)
    record = read_record(VersionRecord, text.encode(), "model.json")
    assert json.dumps(record.values(), sort_keys=True) == text
    assert (record.begins_with, record.verdict.failed) == (1, ["sliced_wasserstein"])


def test_an_attempt_is_written_under_the_keys_it_is_read_by() -> None:
    attempt = Attempt(number=1, begun_at_s=1.0, begins_with=None, shards=(), new_images=3, settings={})
    assert attempt.values()["from"] is None
    assert read_record(Attempt, json.dumps(attempt.values()).encode(), "attempt.json") == attempt


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{torn", r"json is damaged \(Expecting"),
        (b"\xff", r"json is damaged \('utf-8' codec"),
        (b"[" * 100_000, "model.json is damaged"),
        (b"[1]", "model.json is damaged"),
        (
            json.dumps(without(RECORD, "verdict", "rows")).encode(),
            r"\(verdict\.rows: field required\): restore it from",
        ),
        (json.dumps(RECORD | {"step": "many"}).encode(), r"\(step: input should be a valid integer"),
        (json.dumps(RECORD | {"number": 3}).encode(), r"it says format 1, number 3, not 1 and 2"),
        (json.dumps(RECORD | {"format": 9}).encode(), r"it says format 9, number 2"),
    ],
)
def test_a_damaged_record_is_refused_by_its_name(registry: ModelRegistry, content: bytes, message: str) -> None:
    assert registry.version(2).record.data.images == 3
    registry.folder.write("versions/000002/model.json", content)
    with pytest.raises(InputError, match=message) as caught:
        registry.version(2)
    assert "versions/000002/model.json is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "CURRENT is damaged"),
        (json.dumps(without(CURRENT, "epoch")).encode(), r"epoch: field required"),
        (json.dumps(CURRENT | {"stack": []}).encode(), r"stack: .*at least 1 item"),
        (json.dumps(CURRENT | {"version": 1}).encode(), r"it names version 1, and 2 as"),
    ],
)
def test_a_damaged_pointer_is_refused_by_its_name(registry: ModelRegistry, content: bytes, message: str) -> None:
    current = registry.current()
    assert current is not None
    assert (current.number, current.stack, current.log[0].why) == (2, (1, 2), "promoted")
    registry.folder.write("CURRENT", content)
    with pytest.raises(InputError, match=message):
        registry.current()


def test_a_verdict_names_what_failed() -> None:
    assert Verdict(holds=True, rows=()).failed == []
