"""Students on a Ray cluster: one that dies reads its teacher again, and gives the bytes of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.run.teacher import copy_teacher
from tests.campaigns.chaos import killing
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings, trained

STUDENTS = FLOWS | {"experts": {"default": "student"}, "distil": {"evaluations": 2, "adversarial": 0.1}}


@pytest.fixture(scope="module")
def flows(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    settings = tiny_run_settings(tmp_path_factory.mktemp("flows") / "run", small_shards, **FLOWS, max_steps=2)
    trained(settings)
    return settings


@pytest.mark.long
def test_a_dead_student_is_replayed(flows: RunSettings, tmp_path: Path, ray_cluster: None) -> None:
    checkpoint = find_checkpoint(flows.run)
    for name in ("inline", "ray"):
        copy_teacher(str(tmp_path / name), checkpoint, checkpoint.averages())
    inline = trained(tiny_run_settings(tmp_path / "inline", flows.data, **STUDENTS))[2]
    settings = tiny_run_settings(tmp_path / "ray", flows.data, **STUDENTS, executor="ray", snapshot_every=4, window=3)
    with killing({5: ["HL-LH-HH1"]}) as replaced:
        _, events, digest = trained(settings)
    assert digest == inline
    assert replaced == {"HL-LH-HH1"}
    assert [(recovery.stages, recovery.decision) for recovery in events.recoveries] == [(("HL-LH-HH1",), "replay")]
