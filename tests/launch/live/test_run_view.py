"""What the live view says of a run, from its folder or bucket: state, progress, stages, checkpoints, failures."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.data.quarantine import Quarantine, QuarantinedImage
from cluster.evaluation.background import Evaluation
from cluster.execution.failure_policy import Recovery
from cluster.run.layout import CHECKPOINTS, LEASE
from cluster.storage.folder import open_folder
from cluster.storage.lease import DURATION_S, Lease
from freqgan.errors import InputError
from launch.live.run_view import MOST_EVALUATIONS, RunView, begun_run, without_secrets
from launch.run_folder.evaluations import EVALUATIONS, EvaluationLog
from launch.run_folder.failures import FAILURES, FailureLog
from launch.run_folder.metrics import METRICS
from launch.settings.load import load_settings
from tests.support.live_runs import train_with_folder
from tests.support.mixtures import FLOW_OVERRIDES
from tests.support.s3_server import BUCKET

FREE = (*FLOW_OVERRIDES, "pace=free", "checkpoint_every=2", "stage_images.high=32", "generation.evaluations=2")
"""LL1 takes 6 steps of 8 images, the high bands 4."""
SCORES: dict[str, dict[str, float | None]] = {
    "learned.frechet": {"value": 3.0, "floor": 1.5, "ratio": 2.0},
    "validation_loss.LL1": {"value": 0.25, "floor": None, "ratio": None},
}


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that others share."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def facts_of(run: object) -> dict[str, Any]:
    facts = RunView(str(run)).facts()
    assert facts["fault"] == ""
    json.dumps(facts, allow_nan=False)
    return facts


def ended_early(run: Path) -> Path:
    """The run as its training left it after three steps."""
    for folder in (run / CHECKPOINTS).glob("*6"):
        shutil.rmtree(folder)
    (step,) = (path for path in (run / CHECKPOINTS).iterdir() if path.name.isdecimal())
    latest = {"step": 3, "attempt": next(step.iterdir()).name, "epoch": 1, "first_step": 0, "at_s": time.time()}
    (run / CHECKPOINTS / "LATEST").write_text(json.dumps(latest))
    path = run / METRICS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    return run


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The lease of the run, as a training holds it."""
    with Lease(open_folder(str(run)).child(CHECKPOINTS), LEASE, "run"):
        yield


def age(path: Path, seconds: float) -> None:
    at_s = time.time() - seconds
    os.utime(path, (at_s, at_s))


def test_a_run_that_has_ended(run: Path) -> None:
    facts = facts_of(run)
    assert facts["state"] == {"kind": "ended", "text": "after 6 steps"}
    assert (facts["images"], facts["total_images"], facts["left_s"]) == (48, 48, None)
    assert dict(facts["summary"])["experts"] == "4 GANs"
    assert [(one["images"], one["step"]) for one in facts["samples"]] == [(24, 3), (48, 6)]
    (whole,) = facts["components"]
    assert [(one["step"], one["images"], one["is_best"]) for one in whole["checkpoints"]] == [
        (3, 24, False), (6, 48, False),
    ]  # fmt: skip
    assert all(one["size_bytes"] > 1000 for one in whole["checkpoints"])
    stages = {one["name"]: one for one in whole["stages"]}
    assert list(stages) == ["LL1", "HL1", "LH1", "HH1", "image"]
    assert stages["HL1"]["takes_from"] == ["LL1", "image"]
    assert all(one["seconds"] > 0 and one["waited_s"] >= 0 for one in stages.values())
    assert facts["alphas"] == {"image": ["alpha"]}
    assert [step["step"] for step in whole["timeline"]] == [1, 2, 3, 4, 5, 6]
    assert whole["window"] == load_settings("smoke", []).window


def test_curves_and_grids_are_those_of_the_folder(run: Path) -> None:
    view = RunView(str(run), refresh_s=0)
    answer = view.metrics()
    (whole,) = answer["components"]
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert whole["images"] == [line["images"] for line in lines]
    for stage in ("LL1", "image"):
        means = whole["series"][stage]["loss_g"]["mean"]
        assert means == pytest.approx([line["stages"][stage]["loss_g"] for line in lines], rel=1e-4)
    assert view.sample(24) == (run / "samples" / "000000024.png").read_bytes()
    with pytest.raises(InputError, match=r"has no samples/000000025\.png"):
        view.sample(25)
    again = view.metrics(answer["cursor"])["components"][0]
    assert (again["first"], again["steps"]) == (5, [6])


def test_a_run_that_trains_waits_begins_or_was_stopped(run: Path) -> None:
    ended_early(run)
    stopped = facts_of(run)["state"]
    assert stopped == {"kind": "stopped", "text": "after 3 steps; the same command goes on with it"}
    with held(run):
        facts = facts_of(run)
        assert facts["state"]["kind"] == "trains"
        assert facts["left_s"] == pytest.approx(24 / facts["images_per_s"])
        age(run / METRICS, 600)
        waits = facts_of(run)["state"]
        assert waits["kind"] == "waits"
        assert "10 min 00 s" in waits["text"]
        (run / METRICS).unlink()
        assert facts_of(run)["state"]["kind"] == "begins"


def test_a_training_that_was_killed_or_failed_is_told_from_one_that_was_stopped(run: Path) -> None:
    ended_early(run)
    with held(run):
        record = (run / CHECKPOINTS / LEASE).read_bytes()
    (run / CHECKPOINTS / LEASE).write_bytes(record.replace(str(os.getpid()).encode(), b"1", 1))
    age(run / CHECKPOINTS / LEASE, 2 * DURATION_S)
    killed = facts_of(run)["state"]
    assert killed["kind"] == "stopped"
    assert "is gone: it gave its last sign of life 1 min 00 s ago" in killed["text"]
    (run / "error.txt").write_text("Traceback\nZeroDivisionError: division by zero\n")
    facts = facts_of(run)
    assert facts["state"]["kind"] == "failed"
    assert "ZeroDivisionError" in facts["traceback"]


def test_scores_failures_and_images_left_out(run: Path) -> None:
    log = EvaluationLog(run / EVALUATIONS, 0)
    log.append(Evaluation(3, 24, SCORES, "learned"))
    log.append(Evaluation(6, 48, {"validation_loss.LL1": SCORES["validation_loss.LL1"]}, "learned"))
    (run / CHECKPOINTS / "BEST").write_text('{"step": 3, "fit": 2.0, "yardstick": "learned"}')
    FailureLog(run / FAILURES).append(Recovery(4, ("LL1",), "its actor died", "replay", 3, 1, 2.5))
    image = QuarantinedImage("data/shard-00000.tar", "7.png", "7.png is cut off", 0, 7, 0)
    Quarantine(open_folder(str(run)), 8).add([image], 96)
    view = RunView(str(run), refresh_s=0)
    facts, scores = view.facts(), view.scores()
    assert [one["is_best"] for one in facts["components"][0]["checkpoints"]] == [True, False]
    assert facts["best"] == {"step": 3, "fit": 2.0, "yardstick": "learned"}
    (failure,) = facts["failures"]
    assert (failure["step"], failure["images"], failure["stages"]) == (4, 32, ["LL1"])
    assert failure["trained_s"] == json.loads((run / METRICS).read_text().splitlines()[3])["wall_s"]
    assert failure["text"].startswith("LL1 died at step 4; replaced within 2.5 s")
    assert (facts["left_out"]["count"], facts["left_out"]["images"][0]["member"]) == (1, "7.png")
    (evaluation,) = scores["evaluations"]
    assert (evaluation["images"], evaluation["fit"]) == (24, 2.0)
    assert evaluation["scores"]["learned.frechet"] == [3.0, 1.5]
    assert scores["held_out"] == {"LL1": [[24, 0.25], [48, 0.25]]}
    for step in range(7, 1_400):
        log.append(Evaluation(step, 8 * step, SCORES, "learned"))
    assert facts["scores_tag"] != view.facts()["scores_tag"]
    many = view.scores()["evaluations"]
    assert MOST_EVALUATIONS / 2 < len(many) <= MOST_EVALUATIONS
    assert many[-1]["step"] == 1_399


def test_settings_are_shown_without_secrets(run: Path) -> None:
    path = run / "config.yaml"
    text = path.read_text()
    assert RunView(str(run)).settings() == {"yaml": text, "fault": ""}
    path.write_text(f"{text}api_key: xyz123\n")
    settings = RunView(str(run)).settings()
    assert "xyz123" not in settings["yaml"]
    assert "api_key" in settings["fault"]
    changed = without_secrets("mlflow: http://me:pass@host:5000/x\n  db_password: 'abc'\nrun: s3://bucket/run\n")
    assert changed == "mlflow: http://***@host:5000/x\n  db_password: '***'\nrun: s3://bucket/run\n"


def test_without_settings_beside_them_those_of_the_checkpoint_say_what_is_trained(run: Path) -> None:
    (run / "config.yaml").unlink()
    facts = facts_of(run)
    assert (facts["state"]["kind"], facts["total_images"]) == ("ended", 48)
    assert dict(facts["summary"])["experts"] == "4 GANs"
    assert begun_run(str(run)).settings() == {"yaml": "", "fault": ""}


def test_a_folder_in_which_nothing_is_trained_yet(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    assert (facts["state"]["kind"], facts["images"], facts["total_images"]) == ("new", 0, None)
    with pytest.raises(InputError, match="leave --live out"):
        begun_run(str(tmp_path))
    (tmp_path / "CURRENT").write_text('{"version": 1}')
    with pytest.raises(InputError, match="name the run of one of its attempts"):
        RunView(str(tmp_path))


def test_components_at_a_free_pace(small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "free"
    train_with_folder(run, small_shards, *FREE)
    view = RunView(str(run), refresh_s=0)
    facts, metrics = view.facts(), view.metrics()
    first, second = facts["components"]
    assert (first["name"], first["images"], first["total_images"]) == ("LL1", 48, 48)
    assert (second["images"], second["total_images"]) == (32, 32)
    assert (facts["images"], facts["total_images"], facts["is_free"]) == (80, 80, True)
    assert facts["state"] == {"kind": "ended", "text": "2 components: 2 ended"}
    assert facts["samples"][-1]["images"] == 32  # all components have seen so many
    assert [one["steps"][-1] for one in metrics["components"]] == [6, 4]
    assert "loss" in metrics["components"][0]["series"]["LL1"]
    with held(run / "components" / "LL1"):
        assert facts_of(run)["state"]["kind"] == "ended"  # its checkpoint says so, whoever holds the lease
    shutil.rmtree(run / "components" / "LL1" / CHECKPOINTS)
    state = facts_of(run)["state"]
    assert state == {"kind": "stopped", "text": "2 components: 1 stopped, 1 ended"}
    (run / "error.txt").write_text("Traceback\n")
    assert facts_of(run)["state"]["kind"] == "failed"


def test_a_jointly_trained_system(small_shards: Path, tmp_path: Path) -> None:
    view = RunView(str(train_with_folder(tmp_path / "run", small_shards, "system=fusion", "max_steps=2")))
    assert dict(view.facts()["summary"])["system"] == "fusion"
    assert {"lambda", "loss_d", "loss_g_low"} <= view.metrics()["components"][0]["series"]["fusion"].keys()


def test_a_run_in_a_bucket_is_shown_as_one_on_a_disk(trained: Path, s3_server: str) -> None:
    bucket = open_folder(f"s3://{BUCKET}/live/run")
    for path in (path for path in trained.rglob("*") if path.is_file()):
        bucket.upload(path, path.relative_to(trained).as_posix())
    remote, local = RunView(bucket.url), RunView(str(trained))
    there, here = remote.facts(), local.facts()
    for key in ("state", "images", "total_images", "samples", "alphas", "summary"):
        assert there[key] == here[key]
    assert there["components"][0]["checkpoints"] == here["components"][0]["checkpoints"]
    assert remote.metrics()["components"][0]["series"] == local.metrics()["components"][0]["series"]
    assert remote.sample(24) == local.sample(24)


def test_lines_whose_values_are_foreign_are_passed_over(run: Path) -> None:
    before = facts_of(run)
    line = {"step": 7, "images": 56, "wall_s": 1.0, "images_per_s": 2.0, "stages": {"LL1": {"loss_d": "a"}}}
    foreign: dict[str, list[object]] = {
        METRICS: [line, line | {"images": None, "stages": {}}, line | {"stages": [1]}, line | {"stages": {"LL1": 1}}],
        EVALUATIONS: [{"step": 7, "images": 56, "scores": {"spectrum_db": 3}, "best_by": "bands"}, [1], "x"],
        FAILURES: [
            {"step": 1, "stages": [1], "cause": 0, "decision": "replay", "from_step": 0, "steps": 1, "seconds": 0}
        ],
    }
    for name, lines in foreign.items():
        with (run / name).open("a") as file:
            file.writelines(f"{json.dumps(one)}\n" for one in lines)
    (run / CHECKPOINTS / "BEST").write_text("[]")
    view = RunView(str(run), refresh_s=0)
    facts = view.facts()
    assert facts["fault"] == ""
    assert (facts["images"], facts["failures"], facts["state"]) == (48, [], before["state"])
    assert view.scores() == {"evaluations": [], "held_out": {}}
    assert view.metrics()["components"][0]["steps"] == [1, 2, 3, 4, 5, 6]


def test_storage_that_fails_leaves_what_was_known(run: Path) -> None:
    view = RunView(str(run), refresh_s=0)
    assert view.facts()["fault"] == ""
    (run / METRICS).unlink()
    (run / METRICS).mkdir()
    (run / "quarantine.jsonl").write_text("{}\n")
    facts = view.facts()
    assert "quarantine.jsonl, line 1, is no image that was left out" in facts["fault"]
    assert facts["images"] == 48
