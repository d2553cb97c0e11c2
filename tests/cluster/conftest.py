"""Digests of undisturbed trainings, which others are held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR


@pytest.fixture(scope="session")
def quiet(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an uninterrupted inline run."""
    run = tmp_path_factory.mktemp("quiet") / "run"
    result, events, digest = trained(tiny_run_settings(run, small_shards))
    assert (result.step, result.reason) == (6, "done")
    assert events.checkpoints == [2, 4, 6]
    assert [record.step for record in events.records] == [1, 2, 3, 4, 5, 6]
    assert events.records[-1].images == 48
    assert set(events.records[0].stages) == {"LL1", "HL1", "LH1", "HH1", "image"}
    return digest


@pytest.fixture(scope="session")
def quiet_pair(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with two GANs."""
    return trained(tiny_run_settings(tmp_path_factory.mktemp("quiet") / "run", small_shards, **PAIR))[2]
