"""Experiment trackers get the numbers of a training, and never cost it anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.run.settings import TrackingSettings
from launch.run_folder.trackers import FILE, flat_settings, run_name
from tests.support.commands import run_command
from tests.support.runs import tiny_run_settings

Capsys = pytest.CaptureFixture[str]


def train(capsys: Capsys, run: Path, data: Path, steps: int, *more: str) -> str:
    """A run of one band; what it told."""
    arguments = ("smoke", f"data={data}", f"run={run}", "plan.bands=[LL1]", "image_stage=none", f"max_steps={steps}")
    outcome = run_command(capsys, "train", *arguments, "checkpoint_every=2", *more)
    assert outcome.code == 0, outcome.err
    return outcome.err


def test_mlflow_has_every_step_and_a_resumed_training_is_the_same_run(
    capsys: Capsys, small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"tracking.mlflow=file://{tmp_path}/tracked"
    for steps in (2, 4):
        assert "tracking" not in train(capsys, tmp_path / "mine", small_shards, steps, uri)
    client = tracking.MlflowClient(tracking_uri=f"file://{tmp_path}/tracked")
    (run,) = client.search_runs([client.get_experiment_by_name("freqgan").experiment_id])
    assert run.info.run_name == "mine"
    assert run.info.status == "FINISHED"
    assert json.loads((tmp_path / "mine" / FILE).read_text()) == {"mlflow": run.info.run_id}
    assert run.data.params["plan.bands"] == '["LL1"]'
    lines = [json.loads(line) for line in (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()]
    history = sorted((x.step, x.value) for x in client.get_metric_history(run.info.run_id, "loss_d/LL1"))
    assert [step for step, _ in history] == [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [x for _, x in history] == pytest.approx([line["stages"]["LL1"]["loss_d"] for line in lines], rel=1e-4)


def test_wandb_writes_files_when_it_is_offline(
    capsys: Capsys, small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = train(capsys, tmp_path / "run", small_shards, 2, "tracking.wandb=bands")
    assert "tracking" not in told
    name = json.loads((tmp_path / "run" / FILE).read_text())["wandb"]
    (stored,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb")
    assert b"loss_d/LL1" in stored.read_bytes()


def test_what_cannot_be_reached_or_is_not_installed_is_told_once(
    capsys: Capsys, small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    told = train(
        capsys, tmp_path / "run", small_shards, 2, "tracking.mlflow=http://127.0.0.1:1", "tracking.wandb=bands"
    )
    assert told.count("tracking.mlflow: ") == 1
    assert told.count("pip install 'freqgan[wandb]'") == 1
    assert (tmp_path / "run" / "checkpoints" / "LATEST").exists()


def test_no_secret_and_no_place_goes_along() -> None:
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_USERNAME"):
        TrackingSettings(mlflow="https://me:secret@host/")
    assert TrackingSettings(mlflow="https://host/a@b").mlflow
    elsewhere = {"watch": {"data": "s3://bucket/held-out"}, "conditioning": {"network": "s3://bucket/vgg19.pth"}}
    flat = flat_settings(tiny_run_settings("s3://bucket/run", "s3://bucket/data", **elsewhere))
    assert not [key for key, text in flat.items() if "bucket" in text]
    assert flat["optimiser.beta2"]


def test_parts_of_a_run_have_names_of_their_own() -> None:
    assert run_name("s3://bucket/runs/mine") == "mine"
    assert run_name("/runs/mine/components/LL3/") == "mine/LL3"
