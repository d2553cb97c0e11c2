"""The copy of a teacher in the folder of a run of students: pinned, verified, and the same for every resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.run.teacher import copy_teacher, find_teacher, open_teacher
from cluster.training.train import preflight
from freqgan.errors import InputError
from tests.support.runs import tiny_run_settings, trained

SMALL = {"width": 8, "coarse_width": 8}
FLOWS: dict[str, Any] = {
    "experts": {"default": "flow"},
    "plan": {"high_gans": {1: 1}, "strict_nesting": True},
    "flow": {"coarse_network": SMALL, "band_network": SMALL},
    "image_stage": {"enabled": False},
    "max_steps": 3,
    "checkpoint_every": 1,
}
STUDENTS = FLOWS | {"experts": {"default": "student"}, "distil": {"evaluations": 2, "adversarial": 0.1}}


@pytest.fixture(scope="module")
def flows(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """A run of two flow experts with checkpoints of several steps."""
    settings = tiny_run_settings(tmp_path_factory.mktemp("flows") / "run", small_shards, **FLOWS)
    trained(settings)
    return settings


def students(flows: RunSettings, run: Path, step: int = 3, **changes: Any) -> RunSettings:
    """Settings of students in ``run``, with a copy of their teacher there."""
    checkpoint = find_checkpoint(flows.run, step=step)
    copy_teacher(str(run), checkpoint, checkpoint.averages())
    return tiny_run_settings(run, flows.data, **STUDENTS | changes)


def test_what_is_copied_is_what_the_checkpoint_has(flows: RunSettings, tmp_path: Path) -> None:
    teacher = open_teacher(students(flows, tmp_path / "run"))
    checkpoint = find_checkpoint(flows.run)
    for stage, tensors in checkpoint.averages().items():
        copied = teacher.averages(stage)
        assert copied.keys() == tensors.keys()
        assert all(torch.equal(x, copied[name]) for name, x in tensors.items())
    statistics = teacher.statistics().tensors()
    assert all(torch.equal(x, statistics[name]) for name, x in checkpoint.statistics().tensors().items())
    assert (teacher.record.run, teacher.record.step) == (flows.run, 3)
    assert teacher.settings == flows


def test_a_resumed_run_has_the_bytes_of_one_that_was_not_stopped(flows: RunSettings, tmp_path: Path) -> None:
    _, events, digest = trained(students(flows, tmp_path / "whole"))
    stopped = students(flows, tmp_path / "stopped")
    assert trained(stopped.model_copy(update={"max_steps": 1}))[2] != digest
    assert trained(stopped)[2] == digest
    assert all({"loss", "loss_d"} <= numbers.keys() for numbers in events.records[-1].stages.values())
    statistics = find_checkpoint(stopped.run).statistics().tensors()
    measured = find_checkpoint(flows.run).statistics().tensors()
    assert all(torch.equal(x, statistics[name]) for name, x in measured.items()), "the teacher's, not measured again"


def test_another_teacher_gives_another_student(flows: RunSettings, tmp_path: Path) -> None:
    digests = {trained(students(flows, tmp_path / str(step), step))[2] for step in (2, 3)}
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["LL1.generator.safetensors", "statistics.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_teacher_is_refused(name: str, damage: str, flows: RunSettings, tmp_path: Path) -> None:
    settings = students(flows, tmp_path / "run")
    file = tmp_path / "run" / "teacher" / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    if damage == "changed":
        file.write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}.*restore it from a copy, or distil into another run="):
        preflight(settings)


def test_a_record_that_is_damaged_or_not_there_is_refused(flows: RunSettings, tmp_path: Path) -> None:
    settings = students(flows, tmp_path / "run")
    record = tmp_path / "run" / "teacher" / "teacher.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"files": []}))
    with pytest.raises(InputError, match=r"lists no LL1.generator.safetensors"):
        open_teacher(settings).averages("LL1")
    record.write_text("{")
    with pytest.raises(InputError, match=r"teacher.json is damaged"):
        preflight(settings)
    record.unlink()
    assert find_teacher(settings.run) is None
    with pytest.raises(InputError, match=r"holds no teacher.*freqgan distil RUN run="):
        preflight(settings)


@pytest.mark.parametrize(
    ("key", "changes"),
    [("levels", {"levels": 2, "plan": {"strict_nesting": True}}), ("image_size", {"image_size": 32})],
    ids=["levels", "image_size"],
)
def test_students_of_other_bands_are_refused(
    key: str, changes: dict[str, Any], flows: RunSettings, tmp_path: Path
) -> None:
    settings = students(flows, tmp_path / "run", **changes)
    with pytest.raises(InputError, match=f"{key} is .* there and .* here"):
        preflight(settings)
