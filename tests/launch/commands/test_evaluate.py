"""What is scored of models without an image stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import run_command
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings, trained

Capsys = pytest.CaptureFixture[str]


def test_without_an_image_stage_there_are_no_parts(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path, brief_critic: None
) -> None:
    run, file = tmp_path / "run", tmp_path / "scores.json"
    trained(tiny_run_settings(run, small_shards, **FLOWS | {"max_steps": 1}))
    outcome = run_command(
        capsys, "evaluate", run, "--data", held_out, "--count", 64, "--parts", "--json", file,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (
        "--parts: the model has no image stage: its images are those of the chain, and are scored once" in outcome.err
    )
    assert json.loads(file.read_text())["sliced_wasserstein"].keys() == {"value", "floor", "ratio"}
    assert outcome.err.count("measuring image: critic_accuracy") == 1
