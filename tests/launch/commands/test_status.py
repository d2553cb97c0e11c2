"""What a run folder tells of stages that do not wait for each other."""

from __future__ import annotations

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
