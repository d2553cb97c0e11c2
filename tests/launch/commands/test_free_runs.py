"""What commands say and make of a run whose components trained at their own pace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cluster.evaluation.validation import held_out_images, validation_losses
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.training.warm_start import begin_from
from freqgan.errors import InputError
from launch.commands.train import run_training
from launch.run_folder.logs import joined_lines, read_logs
from launch.run_folder.metrics import MetricsLine
from launch.settings.load import load_settings
from tests.support.commands import refused, run_command
from tests.support.mixtures import FLOW_OVERRIDES

Capsys = pytest.CaptureFixture[str]
FREE = (*FLOW_OVERRIDES, "pace=free", "checkpoint_every=2", "keep_checkpoints=9", "stage_images.high=32")
"""LL1 takes 6 steps of 8 images, the high bands 4."""


@pytest.fixture(scope="module")
def free_run(small_shards: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("free") / "run"
    watch = (f"watch.data={held_out}", "watch.count=64", "watch.learned=false")
    assert run_training(load_settings("smoke", [f"data={small_shards}", f"run={run}", *FREE, *watch])) == 0
    return run


def test_status_shows_where_every_component_is(capsys: Capsys, free_run: Path) -> None:
    said = run_command(capsys, "status", free_run)
    assert said.code == 0, said.err
    words = " ".join(said.out.split())
    assert "whole, of 32 images at least" in words
    assert "48 of 48" in words
    assert "32 of 32" in words
    assert words.count("done") == 2
    assert "slowest stage" not in words  # no component has several
    assert words.count("process") == 2  # who last trained each


def test_digests_of_stages_have_a_step_each(capsys: Capsys, free_run: Path) -> None:
    lines = run_command(capsys, "digest", free_run, "--stages").out.splitlines()
    assert [line.split(" sha256 ")[0] for line in lines] == ["LL1 step 6", "HL-LH-HH1 step 4", "step 6"]
    assert len({line.split()[-1] for line in lines}) == 3


def test_images_at_a_common_number_of_images(capsys: Capsys, free_run: Path, tmp_path: Path) -> None:
    newest = run_command(capsys, "generate", free_run, "--count", 1, "--out", tmp_path / "newest")
    assert "of steps 4 to 6" in newest.out
    common = run_command(capsys, "generate", free_run, "--count", 1, "--out", tmp_path / "common", "--at-images", 32)
    assert "of step 4" in common.out
    assert find_checkpoint(str(free_run), at_images=16).stage_steps == {"LL1": 2, "HL-LH-HH1": 2}
    early = run_command(capsys, "generate", free_run, "--count", 1, "--out", tmp_path / "early", "--at-images", 15)
    assert "a checkpoint of at most 15 images of LL1, HL-LH-HH1 is missing" in refused(early)
    both = run_command(capsys, "generate", free_run, "--count", 1, "--out", tmp_path, "--at-images", 32, "--best")
    assert "name two checkpoints" in refused(both)


def test_the_report_joins_the_logs_of_all_components(capsys: Capsys, free_run: Path) -> None:
    assert run_command(capsys, "report", free_run).code == 0
    page = (free_run / "report.html").read_text()
    assert "Where every part of the model is" in page
    assert (free_run / "report" / "curves-flow.png").exists()
    assert "32 to 48" in page
    assert not (free_run / "report" / "timeline.png").exists()  # no common clock
    logs = read_logs(str(free_run))
    assert [line.step for line in logs.lines] == [1, 2, 3, 4, 5, 6]
    assert logs.lines[-1].stages["HL-LH-HH1"] == {}
    assert logs.held_out["LL1"][-1][0] == 48
    assert logs.held_out["HL-LH-HH1"][-1][0] == 32
    assert logs.evaluations  # of the whole model's pictures


def test_held_out_losses_are_those_of_the_weights(free_run: Path, held_out: Path) -> None:
    whole = find_checkpoint(str(free_run))
    losses = validation_losses(whole, str(held_out), 64)
    stored = {name: points[-1][1] for name, points in read_logs(str(free_run)).held_out.items()}
    assert losses == pytest.approx(stored, rel=1e-4)
    assert validation_losses(whole, str(held_out), 64) == losses  # times and noises are the same again
    untrained = find_checkpoint(str(free_run), at_images=16)
    assert validation_losses(untrained, str(held_out), 64) != losses


def test_held_out_images_must_have_labels_that_the_model_knows(free_run: Path, small_shards: Path) -> None:
    settings = find_checkpoint(str(free_run)).settings.model_copy(update={"classes": 1})
    with pytest.raises(InputError, match="no labels, or others than the model's 0 to 0"):
        held_out_images(settings, str(small_shards), 8, None)


def test_another_run_begins_with_its_weights(free_run: Path, small_shards: Path, tmp_path: Path) -> None:
    model = find_checkpoint(str(free_run))
    settings = model.settings.model_copy(update={"run": str(tmp_path / "newer")})
    begin_from(settings, open_source(settings), model)
    begun = find_checkpoint(settings.run)
    assert begun.stage_steps == {"LL1": 0, "HL-LH-HH1": 0}
    theirs = model.averages()
    assert all(
        torch.equal(theirs[s][name], x) for s, averages in begun.averages().items() for name, x in averages.items()
    )


def test_students_of_it_train_at_their_own_pace(capsys: Capsys, free_run: Path, tmp_path: Path) -> None:
    done = run_command(capsys, "distil", free_run, f"run={tmp_path / 'students'}", "images=16", "watch.data=")
    assert done.code == 0, done.err
    assert find_checkpoint(str(tmp_path / "students")).stage_steps == {"LL1": 2, "HL-LH-HH1": 2}


def test_a_component_alone_makes_no_pictures(capsys: Capsys, free_run: Path, tmp_path: Path) -> None:
    said = run_command(capsys, "generate", free_run / "components" / "LL1", "--count", 1, "--out", tmp_path / "out")
    assert f"holds LL1 alone; name the whole run: {free_run}" in refused(said)


def test_lines_of_components_are_joined_by_their_steps() -> None:
    def line(step: int, wall_s: float, **stages: dict[str, float]) -> MetricsLine:
        return MetricsLine(step, 8 * step, wall_s, 8 / wall_s, stages)

    joined = joined_lines([[line(1, 1.0, A={"loss": 1.0})], [line(1, 2.0, B={}), line(2, 4.0, B={"loss": 2.0})]], "AB")
    assert [(one.step, one.wall_s) for one in joined] == [(1, 2.0), (2, 4.0)]
    assert joined[1].stages == {"A": {}, "B": {"loss": 2.0}}


def test_evaluations_of_a_component_have_no_fit(free_run: Path) -> None:
    lines = (free_run / "components" / "LL1" / "evaluations.jsonl").read_text().splitlines()
    assert [list(json.loads(line)["scores"]) for line in lines] == [["validation_loss.LL1"]] * len(lines)
    whole = json.loads((free_run / "components" / "BEST").read_text())
    own = json.loads((free_run / "components" / "LL1" / "checkpoints" / "BEST").read_text())
    assert whole["fit"] == own["fit"]  # that of the whole model's pictures: no component deletes its part of it


def test_evaluate_measures_a_common_number_of_images_and_names_what_is_missing(
    capsys: Capsys, free_run: Path, held_out: Path, small_shards: Path, tmp_path: Path
) -> None:
    options = ("--data", held_out, "--count", 64, "--no-learned")
    refusal = refused(run_command(capsys, "evaluate", free_run, *options, "--at-images", 15))
    assert "ask for more images, since older checkpoints are deleted" in refusal
    run = tmp_path / "part"
    alone = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}", *FREE, "only=LL1")
    assert alone.code == 0, alone.err
    assert "a checkpoint of HL-LH-HH1 is missing; train" in refused(run_command(capsys, "evaluate", run, *options))
