"""The run folder: metrics without duplicates, events, samples, settings; on a disk and staged for a bucket."""

from __future__ import annotations

import io
import json
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.execution.callbacks import StepRecord
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.run.trained_model import synthesiser_of
from cluster.storage.folder import Folder, open_folder
from cluster.training.train import train
from freqgan.errors import RunError
from freqgan.pixels import to_pixels
from launch.console.progress import ProgressReporter, losses_text
from launch.console.text import duration_text
from launch.run_folder.folder import RunFolder
from launch.run_folder.metrics import METRICS, MetricsLog, mean_alpha, parse_metrics
from launch.run_folder.samples import SampleGrids, draw_samples
from launch.settings.load import load_settings
from tests.support.s3_server import BUCKET


def settings_for(shards: Path, run: object, *overrides: str) -> RunSettings:
    return load_settings("smoke", [f"data={shards}", f"run={run}", *overrides])


def run_training(settings: RunSettings) -> str:
    """Trains with the reporter of the command line; what it said."""
    said = io.StringIO()
    with ProgressReporter(settings, Console(file=said, width=400)) as reporter:
        train(settings, reporter)
    return said.getvalue()


def record(step: int, elapsed_s: float = 1.0) -> StepRecord:
    stages = {"LL1": {"loss_d": 0.7, "loss_g": 1 / 3}, "image": {"loss_d": 0.5, "loss_g": 0.9, "alpha": 0.25}}
    return StepRecord(step, 8 * step, elapsed_s, 123456.789, stages)


def steps_of(text: bytes) -> list[int]:
    return [json.loads(line)["step"] for line in text.splitlines()]


# -- metrics.jsonl ---------------------------------------------------------------------------------


def write_log(path: Path, first_step: int, steps: range) -> None:
    log = MetricsLog(path, first_step)
    for step in steps:
        log.append(record(step, elapsed_s=10.0 * (step - first_step)))
    log.close()


def test_a_line_can_be_read_back(tmp_path: Path) -> None:
    write_log(tmp_path / METRICS, 0, range(1, 3))
    lines = list(parse_metrics((tmp_path / METRICS).open("rb")))
    assert [(line.step, line.images, line.wall_s) for line in lines] == [(1, 8, 10.0), (2, 16, 20.0)]
    assert lines[0].stages["LL1"] == {"loss_d": 0.7, "loss_g": 0.333333}
    assert lines[0].images_per_s == 123457.0


def test_a_line_is_there_as_soon_as_its_step_is_done(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / METRICS, 0)
    log.append(record(1))
    assert steps_of((tmp_path / METRICS).read_bytes()) == [1]
    log.close()


def test_steps_after_the_checkpoint_are_cut_on_resume(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write_log(path, 0, range(1, 8))
    write_log(path, 5, range(6, 10))
    assert steps_of(path.read_bytes()) == list(range(1, 10))


def test_the_time_trained_adds_up_over_starts(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write_log(path, 0, range(1, 6))
    write_log(path, 3, range(4, 6))
    lines = list(parse_metrics(path.open("rb")))
    assert [line.wall_s for line in lines] == [10.0, 20.0, 30.0, 40.0, 50.0]


@pytest.mark.parametrize("torn", [b'{"step": 4, "ima', b"\x00\x00\n", b'{"step": 4}\n', b"[]\n"])
def test_a_torn_line_and_all_behind_it_are_cut(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / METRICS
    write_log(path, 0, range(1, 4))
    whole = path.read_bytes()
    path.write_bytes(whole + torn + whole)
    assert [line.step for line in parse_metrics(path.open("rb"))] == [1, 2, 3]
    write_log(path, 3, range(4, 5))
    assert steps_of(path.read_bytes()) == [1, 2, 3, 4]


def test_a_new_run_begins_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    write_log(path, 0, range(1, 4))
    write_log(path, 0, range(1, 2))
    assert steps_of(path.read_bytes()) == [1]


def test_alpha_is_found_scalar_or_per_band() -> None:
    assert mean_alpha(record(1).stages) == 0.25
    assert mean_alpha({"image": {"loss_d": 1.0, "LL2": 0.2, "HH1": 0.4, "tie": 9.0}}) == pytest.approx(0.3)
    assert mean_alpha({"LL1": {"loss_d": 1.0}}) is None


# -- a run on a disk -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumed_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after step 5 and resumed from its checkpoint of step 3; six steps in all."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = settings_for(small_shards, folder, "max_steps=5")
    with pytest.raises(RuntimeError, match="killed"), ProgressReporter(settings, Console(quiet=True)) as reporter:
        train(settings, KilledAfter(reporter, 5))
    assert steps_of((folder / METRICS).read_bytes()) == [1, 2, 3, 4, 5]
    run_training(settings_for(small_shards, folder))
    return folder


class KilledAfter:
    """A reporter that passes everything on and dies after a step, as a killed process would."""

    def __init__(self, reporter: ProgressReporter, step: int) -> None:
        self.on_prepare, self.on_start = reporter.on_prepare, reporter.on_start
        self.on_checkpoint, self.on_end = reporter.on_checkpoint, reporter.on_end
        self.on_note, self.on_recovery, self.on_evaluation = (
            reporter.on_note,
            reporter.on_recovery,
            reporter.on_evaluation,
        )
        self.on_quarantine = reporter.on_quarantine
        self.reporter, self.step = reporter, step

    def on_step(self, record: StepRecord) -> None:
        self.reporter.on_step(record)
        if record.step == self.step:
            raise RuntimeError("killed")


def test_metrics_have_every_step_once_after_a_resume(resumed_run: Path) -> None:
    lines = list(parse_metrics((resumed_run / METRICS).open("rb")))
    assert [line.step for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line.images for line in lines] == [8, 16, 24, 32, 40, 48]
    assert set(lines[0].stages) == {"LL1", "HL1", "LH1", "HH1", "image"}
    assert 0 < lines[0].stages["image"]["alpha"] < 1
    assert all(before.wall_s <= after.wall_s for before, after in pairwise(lines))
    assert lines[0].wall_s < lines[-1].wall_s


def test_tensorboard_has_every_step_once_after_a_resume(resumed_run: Path) -> None:
    events = EventAccumulator(str(resumed_run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    assert {"loss_d/LL1", "loss_g/HH1", "alpha/image", "speed/images_per_s"} <= set(tags)
    lines = list(parse_metrics((resumed_run / METRICS).open("rb")))
    points = events.Scalars("loss_d/HL1")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert [point.value for point in points] == pytest.approx(
        [line.stages["HL1"]["loss_d"] for line in lines], rel=1e-5
    )


def test_event_files_sort_in_the_order_they_were_begun(small_shards: Path, tmp_path: Path) -> None:
    """Also where starts follow each other within a second, and the writer's count goes from one digit to two."""
    settings, begun = settings_for(small_shards, tmp_path / "run"), list[str]()
    for _ in range(3):
        RunFolder(settings, 0).close()
        new = {path.name for path in (tmp_path / "run" / "tensorboard").iterdir()} - set(begun)
        begun += sorted(new)
        assert len(new) == 1
    assert begun == sorted(begun)
    assert len({name.split(".")[3] for name in begun}) == 3, "one second, one file"


def test_samples_are_those_of_the_checkpoint(resumed_run: Path) -> None:
    assert sorted(p.name for p in (resumed_run / "samples").iterdir()) == ["000000024.png", "000000048.png"]
    grid = np.asarray(Image.open(resumed_run / "samples" / "000000048.png"))
    images = to_pixels(synthesiser_of(find_checkpoint(str(resumed_run))).sample(0, 64).images).numpy()
    assert grid.shape == (8 * 16, 8 * 16, 3)
    assert np.array_equal(grid[16:32, 32:48], images[10].transpose(1, 2, 0))


def test_grids_are_drawn_beside_the_training_which_waits_for_no_more_than_it_must(
    resumed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, drawing, may_go_on = find_checkpoint(str(resumed_run)), threading.Event(), threading.Event()

    def slow(folder: Folder, checkpoint: Checkpoint) -> None:
        drawing.set()
        assert may_go_on.wait(60)
        draw_samples(folder, checkpoint)

    monkeypatch.setattr("launch.run_folder.samples.draw_samples", slow)
    folder = open_folder(str(tmp_path))
    grids = SampleGrids(folder, most_waiting=2)
    grids.add(checkpoint)
    grids.add(checkpoint)  # returns although the first is still drawn
    assert drawing.wait(60)
    assert folder.list() == []
    third = threading.Thread(target=grids.add, args=(checkpoint,))
    third.start()
    third.join(0.3)
    assert third.is_alive()  # a third would be deleted before it is drawn
    may_go_on.set()
    third.join(60)
    grids.close()
    assert folder.list() == ["samples/000000048.png"]
    assert folder.read("samples/000000048.png") == (resumed_run / "samples" / "000000048.png").read_bytes()


def test_a_grid_that_cannot_be_drawn_is_told(resumed_run: Path, tmp_path: Path) -> None:
    shutil.copytree(resumed_run, tmp_path / "run")
    checkpoint = find_checkpoint(str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    grids = SampleGrids(open_folder(str(tmp_path)), most_waiting=2)

    def add_and_wait() -> None:  # either of the two may be the one that tells
        grids.add(checkpoint)
        grids.close()

    with pytest.raises(RunError, match=r"generator\.safetensors|statistics\.safetensors"):
        add_and_wait()
    grids.close()


def test_a_grid_that_a_dead_process_owes_is_drawn_when_the_run_goes_on(
    resumed_run: Path, small_shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(resumed_run, tmp_path / "run")
    grid = tmp_path / "run" / "samples" / "000000048.png"
    content = grid.read_bytes()
    grid.unlink()
    run_training(settings_for(small_shards, tmp_path / "run"))
    assert grid.read_bytes() == content


def test_the_settings_written_are_those_used(
    resumed_run: Path, small_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(str(resumed_run / "config.yaml"), []) == settings_for(small_shards, resumed_run)


# -- what is said ----------------------------------------------------------------------------------


def test_away_from_a_terminal_plain_lines_are_printed(small_shards: Path, tmp_path: Path) -> None:
    said = run_training(settings_for(small_shards, tmp_path / "run")).splitlines()
    assert said[:2] == ["measuring the bands of 64 images", f"training {tmp_path}/run: step 0 of 6"]
    assert "checkpoint of step 3" in said
    line = next(line for line in said if line.startswith("step 6/6, "))
    assert "images/s, 0 s left" in line
    assert "alpha 0." in line
    assert "LL1 " in line
    assert said[-1] == "done at step 6 of 6, 48 images seen"


def test_on_a_terminal_a_bar_shows_the_same(small_shards: Path, tmp_path: Path) -> None:
    settings = settings_for(small_shards, tmp_path / "run")
    with (tmp_path / "terminal").open("w+") as screen:
        with ProgressReporter(settings, Console(file=screen, force_terminal=True, width=120)) as reporter:
            train(settings, reporter)
        screen.seek(0)
        shown = screen.read()
    assert "48/48 images" in shown
    assert "0 s left" in shown
    assert "h left" not in shown  # of the first steps, which wait for everything to start
    assert "images/s" in shown
    assert "HH1 " in shown


def test_losses_are_named_by_gan() -> None:
    assert losses_text(record(1)) == "LL1 0.70/0.33  image 0.50/0.90"


def test_a_flow_expert_has_one_loss() -> None:
    stages: dict[str, dict[str, float]] = {
        "LL1": {"loss": 0.4321},
        "HL1": {"loss_d": 0.7, "loss_g": 0.33},
        "other": {"seconds": 1},
    }
    assert losses_text(StepRecord(1, 8, 1.0, 8.0, stages)) == "LL1 0.432  HL1 0.70/0.33"
    blended = {"image": {"loss_d": 0.7, "loss_g": 0.33, "companion_loss": 12.5}}
    assert losses_text(StepRecord(1, 8, 1.0, 8.0, blended)) == "image 0.70/0.33 12.500"
    alone = {"image": {"companion_loss": 12.5}}
    assert losses_text(StepRecord(1, 8, 1.0, 8.0, alone)) == "image 12.500"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# -- a run in a bucket -----------------------------------------------------------------------------


def test_a_run_in_a_bucket_is_staged_and_resumed(
    s3_server: str, small_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = f"s3://{BUCKET}/staged-run"
    folder = open_folder(run)
    settings = settings_for(small_shards, run)
    with pytest.raises(RuntimeError, match="killed"), ProgressReporter(settings, Console(quiet=True)) as reporter:
        train(settings, KilledAfter(reporter, 5))
    assert steps_of(folder.read(METRICS)) == [1, 2, 3, 4, 5]
    run_training(settings)
    assert steps_of(folder.read(METRICS)) == [1, 2, 3, 4, 5, 6]
    assert folder.child("samples").files() == ["000000024.png", "000000048.png"]
    assert len(folder.child("tensorboard").files()) == 2
    config = folder.read("config.yaml").decode()
    assert f"run: {run}\n" in config
    assert "test-secret" not in config
