"""What ``freqgan status`` reads in a run folder: before the first checkpoint, and of stages at their own pace."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.commands import run_command
from tests.support.mixtures import FLOW_OVERRIDES

Capsys = pytest.CaptureFixture[str]


def test_status_says_how_far_stages_without_an_image_stage_are_apart(
    capsys: Capsys, small_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}", *FLOW_OVERRIDES)
    assert done.code == 0, done.err
    assert "LL1 " in done.err
    said = run_command(capsys, "status", run)
    assert said.code == 0, said.err
    assert "s from the first stage to the last" in said.out
    assert "state" in said.out


def test_status_of_a_run_before_its_first_checkpoint(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}")
    assert done.code == 0, done.err
    shutil.rmtree(run / "checkpoints")
    said = run_command(capsys, "status", run)
    assert said.code == 0, said.err
    assert re.search(r"step +6 of 6", said.out)
    assert re.search(r"failures got over +none", said.out)
    assert re.search(r"images left out +0", said.out)
    assert "last checkpoint" not in said.out
