"""The folder of a run at a free pace: its record, the model of its parts, and what is damaged or gone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.run.checkpoints import find_checkpoint, open_checkpoint
from cluster.run.free_run import begin_free_run, find_free_run
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from tests.support.free_runs import digests_together, free_settings, stage_digests, trained_apart


@pytest.fixture(scope="module")
def trained_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("free") / "run"
    trained_apart(free_settings(folder, small_shards))
    return folder


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of a run of six steps, with checkpoints of steps 2, 4 and 6."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def checkpoints(run: Path, component: str, step: int) -> Path:
    return run / "components" / component / "checkpoints" / f"{step:09d}"


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def opened(run: Path) -> tuple[dict[str, int], list[str], dict[str, str]]:
    """Steps and digests of all stages, and what was said about them."""
    notes: list[str] = []
    checkpoint, digests = open_checkpoint(str(run), lambda one: (one, one.stage_digests()), note=notes.append)
    return checkpoint.stage_steps, notes, digests


@pytest.mark.parametrize("damage", [flip_a_byte, cut, Path.unlink])
def test_a_damaged_file_costs_its_component_one_checkpoint(
    damage: Callable[[Path], None], run: Path, small_shards: Path
) -> None:
    before = stage_digests(str(run))
    damage(next(checkpoints(run, "LH1", 6).rglob("LH1.safetensors")))
    steps, notes, digests = opened(run)
    assert steps == {"LL1": 6, "HL1": 6, "LH1": 4, "HH1": 6}
    assert len(notes) == 1
    assert re.match(r"LH1: checkpoint of step 6 passed over: .*LH1\.safetensors", notes[0])
    assert {name for name in digests if digests[name] != before[name]} == {"LH1"}
    result = trained_apart(free_settings(run, small_shards))
    assert {name: one.step for name, one in result.results.items()} == dict.fromkeys(before, 6)
    assert stage_digests(str(run)) == before


def test_what_is_gone_of_an_island_is_trained_again(run: Path, small_shards: Path) -> None:
    before = stage_digests(str(run))
    for step in (2, 4, 6):
        shutil.rmtree(checkpoints(run, "HL1", step))
    for step in (4, 6):
        shutil.rmtree(checkpoints(run, "HH1", step))
    with pytest.raises(InputError, match=r"is no whole model yet: a checkpoint of HL1 is missing; train .* only=HL1`"):
        find_checkpoint(str(run))
    trained_apart(free_settings(run, small_shards), "HL1")
    assert find_checkpoint(str(run)).stage_steps == {"LL1": 6, "HL1": 6, "LH1": 6, "HH1": 2}
    trained_apart(free_settings(run, small_shards))
    assert stage_digests(str(run)) == before


def test_a_component_without_a_sound_checkpoint_is_named_with_all_that_was_passed_over(run: Path) -> None:
    for step in (2, 4, 6):
        cut(next(checkpoints(run, "HL1", step).rglob("manifest.json")))
    with pytest.raises(InputError, match=r"HL1 is missing.*step 6 passed over.*step 4 passed over.*step 2 passed over"):
        find_checkpoint(str(run))


def test_the_model_of_so_many_images_is_the_newest_of_every_part_up_to_them(run: Path, small_shards: Path) -> None:
    at_four = find_checkpoint(str(run), at_images=4 * 8 + 7)
    assert set(at_four.stage_steps.values()) == {4}
    assert (at_four.step, at_four.images) == (4, 32)
    shutil.rmtree(checkpoints(run, "HL1", 4))
    assert find_checkpoint(str(run), at_images=32).stage_steps == {"LL1": 4, "HL1": 2, "LH1": 4, "HH1": 4}
    with pytest.raises(InputError, match=r"a checkpoint of at most 8 images of LL1, HL1, LH1, HH1 is missing"):
        find_checkpoint(str(run), at_images=8)


def test_a_part_is_no_model(run: Path) -> None:
    with pytest.raises(InputError, match=r"holds HL1 alone; name the whole run"):
        open_model(str(run / "components" / "HL1"))


RECORD = "components/shared.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 0}, r"shared\.json has format 0, this version reads 1; use the version that began it"),
        (
            {"format": 2, "statistics": None},
            r"shared\.json has format 2, this version reads 1; use the version that began it",
        ),
        ({"data": None}, r"shared\.json is damaged \(data: .*\): restore it from a copy, or give another run="),
        ({"settings": {"levels": -3}}, r"shared\.json is damaged \(.*levels.*\): restore it"),
        ({"statistics": {"name": "x"}}, r"shared\.json is damaged \(statistics\.size_bytes: .*\): restore it"),
    ],
)
def test_a_record_of_another_format_or_damaged(
    change: dict[str, object], message: str, run: Path, small_shards: Path
) -> None:
    stored = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps({**stored, **change}))
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=message):
        find_checkpoint(str(run))
    with pytest.raises(InputError, match=message):
        trained_apart(free_settings(run, small_shards))
    assert sorted(run.rglob("*")) == before
    (run / RECORD).write_text(json.dumps(stored))
    assert find_checkpoint(str(run)).step == 6


@pytest.mark.parametrize("damage", [flip_a_byte, cut, Path.unlink])
def test_damaged_statistics(damage: Callable[[Path], None], run: Path, small_shards: Path) -> None:
    damage(next((run / "components").glob("statistics-*.safetensors")))
    message = r"statistics-\w+\.safetensors.*restore it from a copy, or give another run="
    free = find_free_run(str(run))
    assert free is not None
    with pytest.raises(InputError, match=message):
        free.statistics()
    with pytest.raises(InputError, match=message):
        trained_apart(free_settings(run, small_shards))
    with pytest.raises(InputError, match=message):
        open_model(str(run))


def test_other_settings_and_other_data_are_refused_by_every_island(
    run: Path, small_shards: Path, held_out: Path, tmp_path: Path
) -> None:
    message = r"run was begun with other settings: seed is 0 there and 5 here; use the same values or another run="
    for only in ((), ("HL1",)):
        with pytest.raises(InputError, match=message):
            trained_apart(free_settings(run, small_shards, seed=5), *only)
        with pytest.raises(InputError, match=r"data: the shards of .* are not those .*run was begun with"):
            trained_apart(free_settings(run, held_out), *only)
    copy = shutil.copytree(small_shards, tmp_path / "copy")
    assert trained_apart(free_settings(run, copy)).results["LL1"].step == 6  # of the same contents


def test_who_comes_second_takes_the_record_of_the_first(run: Path, small_shards: Path, tmp_path: Path) -> None:
    settings = free_settings(tmp_path / "new", small_shards)
    trained_apart(settings.model_copy(update={"max_steps": 2}), "HL1")
    record = Path(settings.run, RECORD).read_bytes()
    trained_apart(settings, "LL1")
    assert Path(settings.run, RECORD).read_bytes() == record
    trained_apart(settings)
    assert stage_digests(settings.run) == stage_digests(str(run)) == digests_together(settings, tmp_path / "together")


def test_names_of_classes_are_in_the_record(run: Path, small_shards: Path, tmp_path: Path) -> None:
    statistics = open_checkpoint(str(run), lambda one: one.statistics())
    settings = free_settings(tmp_path / "named", small_shards, classes=2)
    assert begin_free_run(settings, "x", lambda: statistics, ("edges", "ramps")).record.classes == ("edges", "ramps")
    path = tmp_path / "named" / RECORD
    older = json.loads(path.read_text())
    del older["classes"]
    path.write_text(json.dumps(older))
    assert begin_free_run(settings, "x", lambda: statistics).record.classes == ()
