"""Stages that exchange nothing, trained with one another, one after the other and by several: the same bytes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
import torch

from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.run.free_run import find_free_run
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.storage.lease import HeldError, Lease
from cluster.training.train import train
from cluster.training.warm_start import begin_from
from freqgan.errors import InputError
from tests.support.free_runs import KINDS, digests_together, free_settings, stage_digests, together, trained_apart
from tests.support.runs import Events
from tests.support.s3_server import BUCKET


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("s3_server")
def test_every_stage_has_the_same_bytes_however_it_is_trained(kind: str, small_shards: Path, tmp_path: Path) -> None:
    small = {"plan": {"bands": ["LL1", "HL1"]}, "max_steps": 4}
    in_turns = free_settings(tmp_path / "in turns", small_shards, kind, **small)
    expected = digests_together(in_turns, tmp_path / "together")
    result = trained_apart(in_turns)
    assert {name: one.step for name, one in result.results.items()} == {"LL1": 4, "HL1": 4}
    assert stage_digests(in_turns.run) == expected
    islands = free_settings(f"s3://{BUCKET}/{uuid.uuid4().hex}", small_shards, kind, **small)
    for component in reversed(islands.by_component().values()):
        trained_apart(islands, *component.only)
    assert stage_digests(islands.run) == expected


def test_the_parts_of_a_whole_model_may_be_of_different_steps(small_shards: Path, tmp_path: Path) -> None:
    settings = free_settings(tmp_path / "run", small_shards, stage_images={"low": 16, "default": 48})
    expected = digests_together(free_settings(tmp_path / "x", small_shards, images=48), tmp_path / "together")
    trained_apart(settings)
    checkpoint = find_checkpoint(settings.run)
    assert checkpoint.stage_steps == {"LL1": 2, "HL1": 6, "LH1": 6, "HH1": 6}
    assert checkpoint.step == settings.last_step  # all of it is done
    digests = checkpoint.stage_digests()
    assert {name: digests[name] == expected[name] for name in digests} == {
        "LL1": False, "HL1": True, "LH1": True, "HH1": True,
    }  # fmt: skip


def test_a_stop_and_a_second_start_change_no_bytes(small_shards: Path, tmp_path: Path) -> None:
    settings = free_settings(tmp_path / "run", small_shards)
    for steps in (1, 3):
        trained_apart(settings.model_copy(update={"max_steps": steps}))
    trained_apart(settings, "HL1")
    assert find_checkpoint(settings.run).stage_steps == {"LL1": 3, "HL1": 6, "LH1": 3, "HH1": 3}
    result = trained_apart(settings)
    assert {one.step for one in result.results.values()} == {6}
    assert stage_digests(settings.run) == digests_together(settings, tmp_path / "together")


def held(settings: RunSettings, component: str) -> Lease:
    """The lease of a component, as another process would have it."""
    run = find_free_run(settings.run)
    assert run is not None
    return Lease(run.checkpoints_of(component), "LEASE", component, duration_s=1.0)


def test_a_stage_that_somebody_else_trains_is_left_to_him(small_shards: Path, tmp_path: Path) -> None:
    settings = free_settings(tmp_path / "run", small_shards)
    trained_apart(settings, "HH1")  # begins the run
    with held(settings, "LL1"):
        events = Events()
        result = trained_apart(settings, "LL1", "HL1", callback=events)
        assert [note for note in events.notes if note.startswith("LL1: ")] == [f"LL1: {result.busy['LL1']}"]
        assert list(result.results) == ["HL1"]
        assert "LL1 is in use by process" in result.busy["LL1"]
        with pytest.raises(HeldError, match="LL1 is in use by process"):
            trained_apart(settings, "LL1", callback=events)
        assert len(events.notes) == 1  # an error, and no note beside it
        assert open_folder(settings.run).child("components", "LL1", "checkpoints").list() == ["LEASE"]


def test_what_fails_ends_its_own_component_alone(small_shards: Path, tmp_path: Path) -> None:
    settings = free_settings(tmp_path / "run", small_shards)
    trained_apart(settings.model_copy(update={"max_steps": 2}))
    manifest = next(Path(settings.run, "components/HL1/checkpoints").rglob("manifest.json"))
    stored = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**stored, "format": 99}))
    with pytest.raises(InputError, match=r"HL1: .*format 99.*\(LL1, LH1, HH1 went on\)"):
        trained_apart(settings)
    manifest.write_text(json.dumps(stored))
    assert find_checkpoint(settings.run).stage_steps == {"LL1": 6, "HL1": 2, "LH1": 6, "HH1": 6}
    trained_apart(settings)
    assert stage_digests(settings.run) == digests_together(settings, tmp_path / "together")


def test_the_whole_model_is_told_of_as_it_grows(small_shards: Path, tmp_path: Path) -> None:
    events = Events()
    trained_apart(free_settings(tmp_path / "run", small_shards), callback=events)
    assert events.checkpoints == [2, 4, 6]
    assert events.ended == (6, "done")


def test_a_folder_is_of_one_pace(small_shards: Path, tmp_path: Path) -> None:
    free = free_settings(tmp_path / "free", small_shards, max_steps=2)
    trained_apart(free, "HL1")  # no whole model yet
    with pytest.raises(InputError, match=r"free was begun with pace=free: use the same value, or another run="):
        train(together(free, free.run), Events())
    joint = together(free, tmp_path / "joint")
    train(joint, Events())
    with pytest.raises(InputError, match=r"joint was begun with pace=together: use the same value, or another run="):
        trained_apart(joint.model_copy(update={"pace": "free"}))
    assert not (tmp_path / "joint" / "components").exists()


def test_a_run_at_a_free_pace_begins_with_an_older_model(small_shards: Path, tmp_path: Path) -> None:
    older = free_settings(tmp_path / "older", small_shards, max_steps=2, plan={"bands": ["LL1", "HL1"]})
    trained_apart(older)
    model, newer = find_checkpoint(older.run), older.model_copy(update={"run": str(tmp_path / "newer"), "seed": 1})
    joint = together(newer, tmp_path / "joint")
    for one in (newer, joint):
        begin_from(one, open_source(one), model)
    begun = find_checkpoint(newer.run)
    assert begun.stage_steps == {"LL1": 0, "HL1": 0}
    weights, old = begun.averages(), model.averages()
    assert all(torch.equal(weights[stage][key], old[stage][key]) for stage in old for key in old[stage])
    trained_apart(newer)
    train(joint, Events())
    assert stage_digests(newer.run) == stage_digests(joint.run)
