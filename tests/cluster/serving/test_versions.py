"""Which version answers: that of CURRENT, followed over promotions and roll-backs, and past models that are damaged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.run.model_registry import ModelRegistry
from cluster.serving.hosted_model import load_model
from cluster.serving.model_source import ModelSource
from cluster.serving.replica import ModelReplica, ReplicaOptions
from freqgan.errors import InputError
from tests.support.serving import retrained_model

PATIENCE_S = 30.0


@pytest.fixture
def registry(gan_run: str, tmp_path: Path) -> ModelRegistry:
    return retrained_model(tmp_path / "models" / "m", gan_run)


@pytest.fixture
def replica(registry: ModelRegistry) -> Iterator[ModelReplica]:
    worker = ModelReplica(ReplicaOptions(registry.folder.url, follow_s=0.05))
    yield worker
    worker.close()


def facts_when(replica: ModelReplica, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while not holds(facts := asyncio.run(replica.facts())):
        assert time.monotonic() < end_s, facts
        time.sleep(0.05)
    return facts


def test_a_run_is_its_newest_checkpoint_and_a_retrained_model_the_version_in_use(
    gan_run: str, registry: ModelRegistry
) -> None:
    run, model = ModelSource(gan_run), ModelSource(registry.folder.url)
    assert (run.is_retrained(), model.is_retrained()) == (False, True)
    assert (run.newest().number, model.newest().number) == (None, 1)
    first, last = load_model(model.newest()), load_model(run.newest())
    assert (first.name, first.checkpoint.step, last.name) == ("1", 4, "6")
    assert first.facts()["lineage"]["code"] == "0"
    with registry.lease() as lease:
        registry.promote(2, lease, "test")
    second = load_model(model.newest())
    assert second.name == "2"
    assert second.digest == last.digest != first.digest


def test_versions_of_which_none_is_in_use_are_refused(gan_run: str, registry: ModelRegistry) -> None:
    registry.folder.delete("CURRENT")
    with pytest.raises(InputError, match="freqgan models promote"):
        ModelSource(registry.folder.url).newest()


def test_promotions_and_roll_backs_are_followed(replica: ModelReplica, registry: ModelRegistry) -> None:
    assert asyncio.run(replica.facts())["version"] == "1"
    with registry.lease() as lease:
        registry.promote(2, lease, "test")
        facts_when(replica, lambda facts: facts["version"] == "2")
        registry.roll_back(lease)
        assert facts_when(replica, lambda facts: facts["version"] == "1")["fault"] is None


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_where_it_is(
    replica: ModelReplica, registry: ModelRegistry
) -> None:
    with registry.lease() as lease:
        registry.promote(2, lease, "test")
        facts_when(replica, lambda facts: facts["version"] == "2")
    for path in Path(registry.version(1).folder.url).rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    current = json.loads(registry.folder.read("CURRENT"))  # which a promotion would not move to a damaged version
    registry.folder.write("CURRENT", json.dumps(current | {"version": 1, "stack": [2, 1]}).encode())
    facts = facts_when(replica, lambda facts: facts["fault"])
    assert facts["version"] == "2"
    assert "version 1 cannot be loaded, and version 2 goes on" in facts["fault"]
