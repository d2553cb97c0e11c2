"""Scores beside training: one at a time, never in its way, and the best checkpoint is kept."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from cluster.evaluation.background import FIT, BackgroundEvaluator, Evaluation, ScoreValues
from cluster.run.checkpoint_listing import best_checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from launch.pages.curves import score_curves
from launch.run_folder.evaluations import EvaluationLog, parse_evaluations
from tests.support.commands import refused, run_command
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, UNSPARED

Capsys = pytest.CaptureFixture[str]


def scores_of(ratio: float, coverage: float = 0.9, duplicates: float = 0.01) -> ScoreValues:
    scores: ScoreValues = {name: {"value": 2 * ratio, "floor": 2.0, "ratio": ratio} for name in FIT}
    scores["neighbours.coverage"] = {"value": coverage, "floor": 0.95, "ratio": coverage / 0.95}
    scores["neighbours.duplicates"] = {"value": duplicates, "floor": 0.02, "ratio": duplicates / 0.02}
    return scores


def test_fit_is_a_mean_of_ratios_and_collapse_is_named() -> None:
    good = Evaluation(5, 50, scores_of(3.0))
    assert good.fit == pytest.approx(3.0)
    assert good.collapse == ""
    assert Evaluation(5, 50, {}).fit == float("inf")
    assert "only 5.0% of the kinds" in Evaluation(5, 50, scores_of(3.0, coverage=0.05)).collapse
    assert "80.0% of the images are near-copies" in Evaluation(5, 50, scores_of(3.0, duplicates=0.8)).collapse


def test_learned_features_decide_where_they_are_measured() -> None:
    scores = scores_of(3.0) | {"learned.frechet": {"value": 0.2, "floor": 0.02, "ratio": 10.0}}
    learned = Evaluation(5, 50, scores, "learned")
    assert (learned.yardstick, learned.fit) == ("learned", 10.0)
    bands = Evaluation(5, 50, scores, "bands")
    assert bands.yardstick == "bands"
    assert bands.fit == pytest.approx(3.0)
    unmeasured = Evaluation(5, 50, scores_of(3.0), "learned")
    assert unmeasured.yardstick == "bands"
    assert unmeasured.fit == pytest.approx(3.0)
    nothing = Evaluation(5, 50, scores | {"learned.frechet": {"value": 0.0, "floor": 0.0, "ratio": None}}, "learned")
    assert nothing.yardstick == "bands"


def test_lines_of_before_and_of_now_are_read(tmp_path: Path) -> None:
    """Older lines do not say what decides, and older versions pass over that they do."""
    log = EvaluationLog(tmp_path / "evaluations.jsonl", 0)
    learned: ScoreValues = {"learned.frechet": {"value": 0.2, "floor": 0.02, "ratio": 10.0}}
    log.append(Evaluation(4, 32, scores_of(3.0) | learned, "learned"))
    (line,) = (tmp_path / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
    values = json.loads(line)
    assert {"step", "images", "scores"} <= set(values)
    assert all(set(score) == {"value", "floor", "ratio"} for score in values["scores"].values())
    before = {name: value for name, value in values.items() if name != "best_by"} | {"step": 2}
    old, new = parse_evaluations([json.dumps(before).encode() + b"\n", line])
    assert old.yardstick == "bands"
    assert old.fit == pytest.approx(3.0)
    assert (new.yardstick, new.fit) == ("learned", 10.0)
    unknown = json.dumps(values | {"best_by": "chance"}).encode() + b"\n"
    assert parse_evaluations([unknown])[0].yardstick == "bands"


def test_one_score_at_a_time_and_the_newest_waits() -> None:
    started: list[int] = []
    futures: dict[int, Future[ScoreValues]] = {}
    notes: list[str] = []

    def start(step: int) -> Future[ScoreValues]:
        started.append(step)
        futures[step] = Future()
        return futures[step]

    watcher = BackgroundEvaluator(start, notes.append)
    for step in (10, 20, 30):
        watcher.offer(step, step * 8)
    assert started == [10]
    assert list(watcher.ready()) == []
    futures[10].set_result(scores_of(2.0))
    assert [(e.step, e.images) for e in watcher.ready()] == [(10, 80)]
    assert started == [10, 30]
    futures[30].set_exception(ValueError("no such file"))
    assert list(watcher.ready(wait=True)) == []
    assert notes == ["the checkpoint of step 30 was not scored: no such file"]


def test_the_log_is_cut_on_resume_and_survives_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    log = EvaluationLog(path, 0)
    for step in (2, 4, 6):
        log.append(Evaluation(step, step * 8, scores_of(step)))
    with path.open("a") as file:
        file.write('{"step": 8, "ima')
    EvaluationLog(path, 4).append(Evaluation(6, 48, scores_of(1.0)))
    found = parse_evaluations(path.read_bytes().splitlines(keepends=True))
    assert [(e.step, round(e.fit, 6)) for e in found] == [(2, 2), (4, 4), (6, 1)]
    assert score_curves(found).width > 500


@pytest.mark.parametrize("executor", [pytest.param("inline", marks=pytest.mark.long), "ray"])
def test_checkpoints_are_scored_and_the_best_is_kept(
    executor: str, quiet_pair: str, small_shards: Path, held_out: Path, tmp_path: Path, ray_cluster: None
) -> None:
    watch = {"data": str(held_out), "count": 64}
    settings = tiny_run_settings(
        tmp_path / "run", small_shards, **PAIR, **UNSPARED, watch=watch, executor=executor, keep_checkpoints=1
    )
    _, events, digest = trained(settings)
    assert digest == quiet_pair  # scores do not touch the arithmetic
    assert events.checkpoints == [2, 4, 6]
    steps = [evaluation.step for evaluation, _ in events.evaluations]
    assert steps, events.notes
    assert steps[-1] == 6
    best = [evaluation for evaluation, marked in events.evaluations if marked][-1]
    assert best.fit == min(evaluation.fit for evaluation, _ in events.evaluations)
    assert find_checkpoint(settings.run, best=True).step == best.step
    assert {evaluation.yardstick for evaluation, _ in events.evaluations} == {"learned"}
    assert best.scores["learned_holdout.instance_accuracy"]["floor"] == pytest.approx(1 / 26)
    assert find_checkpoint(settings.run).step == 6


def test_a_score_that_fails_costs_a_note_and_no_training(small_shards: Path, tmp_path: Path) -> None:
    watch = {"data": str(tmp_path / "nowhere"), "count": 64}
    result, events, _ = trained(tiny_run_settings(tmp_path / "run", small_shards, watch=watch))
    assert result.reason == "done"
    assert any("was not scored" in note and "nowhere" in note for note in events.notes)
    with pytest.raises(InputError, match=r"has no best checkpoint: train with watch\.data"):
        find_checkpoint(str(tmp_path / "run"), best=True)


@pytest.mark.usefixtures("brief_critic")
def test_scores_reach_the_run_folder_and_the_report(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("train", "smoke", f"data={small_shards}", f"run={run}")
    outcome = run_command(capsys, *arguments, f"watch.data={held_out}", "watch.count=64", "max_steps=3")
    assert outcome.code == 0, outcome.err
    assert "scores of step 3" in outcome.err
    assert "times the distance of real images by learned features" in outcome.err
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3
    page = (run / "report.html").read_text()
    assert "Distance from real images" in page
    assert "is the best so far" in page
    assert "times the distance of real images by learned.frechet" in page
    assert page.count("of real images held out from it; guessing has") == 2
    assert "learned_holdout.frechet" in page
    assert run_command(capsys, "generate", run, "--best", "--count", 2, "--out", tmp_path / "out").code == 0
    plain = tmp_path / "plain"
    assert run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={plain}", "max_steps=1").code == 0
    assert "Distance from real images" not in (plain / "report.html").read_text()
    message = refused(run_command(capsys, "generate", plain, "--best", "--count", 2, "--out", tmp_path / "out"))
    assert "watch.data=SHARDS" in message


@pytest.mark.long
@pytest.mark.usefixtures("brief_critic")
def test_bands_decide_where_that_is_set(capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    watch = (f"watch.data={held_out}", "watch.count=64", "watch.best=bands", "watch.learned=false")
    outcome = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}", *watch, "max_steps=2")
    assert outcome.code == 0, outcome.err
    assert "by learned features" not in outcome.err
    assert "learned" not in (run / "evaluations.jsonl").read_text()
    assert "by the mean of five statistics of bands" in (run / "report.html").read_text()
    marked = best_checkpoint(open_folder(str(run)).child("checkpoints"))
    assert marked is not None
    assert (marked.step, marked.yardstick) == (2, "bands")
