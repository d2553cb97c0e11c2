from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cluster.run.checkpoint_writer import CheckpointWriter
from cluster.run.checkpoints import find_checkpoint, has_checkpoints, open_checkpoint
from cluster.run.layout import LEASE, parse_rollback_file
from cluster.run.trained_model import open_model, synthesiser_of
from cluster.storage.folder import Folder
from cluster.storage.lease import Lease
from cluster.training.free_running import train_components
from cluster.training.train import train
from freqgan.errors import InputError, RunError
from tests.support.runs import Events, tiny_run_settings, trained


@pytest.fixture(scope="module")
def finished(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("checkpoints") / "run"
    trained(tiny_run_settings(run, small_shards))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


STAGES = ("LL1", "HL1", "LH1", "HH1", "image")


def newest(run: Path) -> Path:
    return Path(find_checkpoint(str(run)).folder.url)


def test_layout_and_manifest(run: Path) -> None:
    checkpoint = find_checkpoint(str(run))
    assert checkpoint.step == 6
    names = sorted(path.name for path in newest(run).iterdir())
    files = [f"{s}.{e}" for s in STAGES for e in ("json", "safetensors", "generator.safetensors")]
    assert names == sorted([*files, "manifest.json", "statistics.safetensors"])
    assert checkpoint.stage_steps == dict.fromkeys(STAGES, 6)
    assert checkpoint.manifest["data"]["position"] == 48
    assert json.loads((run / "checkpoints" / "LATEST").read_text())["step"] == 6
    updates = {"generator_updates": 6, "discriminator_updates": 6}
    before = {"good.generator_updates": 0, "good.discriminator_updates": 0}
    guard = {"good_step": 0, "signs": 0, "setbacks": 0}
    assert json.loads((newest(run) / "LL1.json").read_text()) == {"step": 6} | updates | before | guard


def test_only_the_newest_are_kept(small_shards: Path, tmp_path: Path) -> None:
    trained(tiny_run_settings(tmp_path / "run", small_shards, keep_checkpoints=2))
    assert sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").glob("0*")) == [4, 6]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "foreign manifest", "other settings"])
def test_a_damaged_checkpoint_is_passed_over_and_named(run: Path, damage: str) -> None:
    weights, manifest = newest(run) / "HL1.safetensors", newest(run) / "manifest.json"
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-20])
    elif damage == "foreign manifest":
        manifest.write_text('{"metadata": "of something else"}')
    else:
        manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    checkpoint, digest = open_checkpoint(str(run), lambda checkpoint: (checkpoint, checkpoint.digest()))
    assert checkpoint.step == 4
    assert len(digest) == 64
    assert len(checkpoint.notes) == 1
    assert "checkpoint of step 6 passed over" in checkpoint.notes[0]
    assert ("HL1.safetensors" in checkpoint.notes[0]) == (damage in ("flip", "truncate", "remove"))
    found = find_checkpoint(str(run))  # which reads no file but manifests
    assert (found.step, found.notes) == ((6, []) if damage == "flip" else (4, checkpoint.notes))
    assert open_model(str(run))[0].step == (6 if damage == "flip" else 4)  # pictures need no live state


def damage(run: Path, name: str, more: bytes = b"") -> None:
    """Flips a bit of a file of the newest checkpoint, and adds ``more`` at its end."""
    data = bytearray((newest(run) / name).read_bytes())
    data[len(data) // 2] ^= 1
    (newest(run) / name).write_bytes(data + more)


def assert_goes_on_from_the_one_before(run: Path, small_shards: Path, name: str, **changes: Any) -> None:
    changes |= {"max_steps": 8}
    _, events, digest = trained(tiny_run_settings(run, small_shards, **changes))
    assert events.first_step == 4
    assert "step 6 passed over" in events.notes[0]
    assert f"{name} " in events.notes[0]
    shutil.rmtree(run / "checkpoints")
    assert trained(tiny_run_settings(run, small_shards, **changes | {"executor": "inline"}))[2] == digest


@pytest.mark.parametrize("name", ["LL1.json", "LL1.safetensors", "image.generator.safetensors"])
def test_training_goes_on_from_the_last_good_one_and_says_so(run: Path, small_shards: Path, name: str) -> None:
    """A file of another size is seen before training starts, one of the same size by the stage that reads it."""
    damage(run, name, b" " * (name == "LL1.json"))
    assert_goes_on_from_the_one_before(run, small_shards, name)


def test_an_actor_that_meets_damage_takes_all_to_the_checkpoint_before(
    tmp_path: Path, small_shards: Path, ray_cluster: None
) -> None:
    one_band: dict[str, Any] = {"plan": {"bands": ["LL1"]}, "max_failures": 0}
    trained(tiny_run_settings(tmp_path, small_shards, **one_band))
    damage(tmp_path, "LL1.safetensors")
    assert_goes_on_from_the_one_before(tmp_path, small_shards, "LL1.safetensors", executor="ray", **one_band)


def test_no_sound_checkpoint_ends_the_training_with_every_reason(run: Path, small_shards: Path) -> None:
    for weights in run.glob("checkpoints/*/*/HL1.safetensors"):
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    with pytest.raises(InputError, match=r"no checkpoint can be used; .*step 6.*step 4.*step 2"):
        trained(tiny_run_settings(run, small_shards, max_steps=8))


# -- files by purpose ---------------------------------------------------------------------------------


def files_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Grows by the name and the size of every file that is read from now on."""
    reads: list[tuple[str, int]] = []
    read = Folder.read

    def recorded(self: Folder, name: str) -> bytes:
        data = read(self, name)
        reads.append((name.rpartition("/")[2], len(data)))
        return data

    monkeypatch.setattr(Folder, "read", recorded)
    return reads


def test_looking_a_checkpoint_up_reads_its_manifest(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = files_read(monkeypatch)
    find_checkpoint(str(run))
    assert {name for name, _ in reads} == {"LATEST", "manifest.json"}
    assert len(reads) == 2


def test_a_picture_needs_the_averages_alone_and_reads_them_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = files_read(monkeypatch)
    open_model(str(run))
    weights = sorted(name for name, _ in reads if name.endswith(".safetensors"))
    assert weights == sorted([*(f"{stage}.generator.safetensors" for stage in STAGES), "statistics.safetensors"])
    everything = sum(record.size_bytes for record in find_checkpoint(str(run)).records)
    assert sum(size for name, size in reads if name in weights) < everything / 5


def test_a_resume_reads_every_file_once(run: Path, small_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(record.name.rpartition("/")[2] for record in find_checkpoint(str(run)).records)
    reads = files_read(monkeypatch)
    settings = tiny_run_settings(run, small_shards, max_steps=7, checkpoint_every=100)
    train(settings, Events())
    assert sorted(name for name, _ in reads if name in names) == names


def rollback_files(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoints/rollback/*/*"))


def test_a_state_to_go_back_to_that_does_not_change_is_written_once(run: Path, small_shards: Path) -> None:
    assert rollback_files(run) == sorted(f"{stage}.good-000000000.safetensors" for stage in STAGES)
    written = {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/rollback/*/*")}
    trained(tiny_run_settings(run, small_shards, max_steps=10))  # by another process, which names them again
    assert {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/rollback/*/*")} == written
    named = [[r.name for r in find_checkpoint(str(run), step=step).records] for step in (8, 10)]
    assert all(sum(name.startswith("rollback/") for name in names) == len(STAGES) for names in named)


def test_states_to_go_back_to_that_nobody_names_are_deleted(small_shards: Path, tmp_path: Path) -> None:
    often = {"health": {"every": 2}, "keep_checkpoints": 2}
    settings = tiny_run_settings(tmp_path / "run", small_shards, max_steps=8, **often)
    digest = trained(settings)[2]
    steps = {parse_rollback_file(name) for name in rollback_files(tmp_path / "run")}
    assert steps == {(stage, step) for stage in STAGES for step in (4, 6)}
    assert len({path.parent for path in (tmp_path / "run").glob("checkpoints/rollback/*/*")}) == 1
    trained(tiny_run_settings(tmp_path / "run", small_shards, max_steps=12, **often))
    steps = {parse_rollback_file(name) for name in rollback_files(tmp_path / "run")}
    assert steps == {(stage, step) for stage in STAGES for step in (8, 10)}
    for last in (3, 8):
        trained(tiny_run_settings(tmp_path / "other", small_shards, max_steps=last, **often))
    assert find_checkpoint(str(tmp_path / "other")).digest() == digest


def in_one_file(run: Path) -> None:
    """Rewrites all checkpoints of a run as the first format had them: everything of a stage in one file."""
    for path in run.glob("checkpoints/0*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        checkpoint = find_checkpoint(str(run), step=manifest["step"])
        states = checkpoint.states()
        for stage, tensors in states.items():
            save_file(tensors, path.parent / f"{stage}.safetensors")
            (path.parent / f"{stage}.generator.safetensors").unlink()
        names = [f"{stage}.{kind}" for stage in states for kind in ("json", "safetensors")]
        contents = {name: (path.parent / name).read_bytes() for name in [*names, "statistics.safetensors"]}
        manifest["files"] = [
            {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents.items()
        ]
        del manifest["stages"]
        path.write_text(json.dumps(manifest | {"format": 1}))
    shutil.rmtree(run / "checkpoints" / "rollback")


def test_checkpoints_of_the_first_format_are_read_and_gone_on_with(
    run: Path, small_shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "new")
    checkpoint, synthesiser = open_model(str(run))
    digest, images = checkpoint.digest(), synthesiser.sample(0, 3).images
    in_one_file(run)
    old, synthesiser = open_model(str(run))
    assert (old.manifest["format"], old.step, old.stage_steps) == (1, 6, dict.fromkeys(STAGES, 6))
    assert old.digest() == digest
    assert (synthesiser.sample(0, 3).images == images).all()
    old.verify()
    ends = [trained(tiny_run_settings(path, small_shards, max_steps=10))[2] for path in (run, tmp_path / "new")]
    assert ends[0] == ends[1]
    assert find_checkpoint(str(run)).manifest["format"] == 2


def test_a_folder_without_manifest_is_no_checkpoint(run: Path) -> None:
    (newest(run) / "manifest.json").unlink()
    assert find_checkpoint(str(run)).step == 4
    assert find_checkpoint(str(run)).notes == []


def test_nothing_usable_is_an_error_with_every_reason(run: Path, tmp_path: Path) -> None:
    for manifest in run.glob("checkpoints/*/*/manifest.json"):
        manifest.write_text("{")
    with pytest.raises(InputError, match=r"no checkpoint can be used; .*step 6.*step 4.*step 2"):
        find_checkpoint(str(run))
    with pytest.raises(InputError, match="nowhere is not there: name"):
        find_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no checkpoint: name"):
        find_checkpoint(str(tmp_path))
    assert not has_checkpoints(str(tmp_path / "nowhere"))


def test_digest_sees_a_single_bit_of_any_tensor(run: Path) -> None:
    checkpoint = find_checkpoint(str(run))
    states = checkpoint.states()
    assert set(states) == {"LL1", "HL1", "LH1", "HH1", "image"}
    assert {name.split(".")[0] for name in states["LL1"]} == {
        "generator", "average", "discriminator", "generator_adam", "discriminator_adam", "kept", "good",
    }  # fmt: skip
    assert checkpoint.digest() == checkpoint.digest()


def test_a_link_to_latest_that_is_damaged_does_not_matter(run: Path) -> None:
    (run / "checkpoints" / "LATEST").write_text("no json")
    assert find_checkpoint(str(run)).step == 6


def test_one_of_a_version_without_later_settings_generates_and_says_why_it_cannot_go_on(
    run: Path, small_shards: Path
) -> None:
    """Settings that did not exist have their defaults; a stage that did not exist has no state."""
    folder = newest(run)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["settings"]["health"], manifest["settings"]["exchange"]
    text = json.dumps(manifest["settings"], sort_keys=True)
    manifest["settings_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    tensors = {k: v for k, v in load_file(folder / "image.safetensors").items() if not k.startswith(("solo.", "good."))}
    save_file(tensors, folder / "image.safetensors")
    data = (folder / "image.safetensors").read_bytes()
    for record in manifest["files"]:
        if record["name"].endswith("/image.safetensors"):
            record |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    latest = run / "checkpoints" / "LATEST"
    pointer = json.loads(latest.read_text())
    pointer["manifest_sha256"] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    latest.write_text(json.dumps(pointer))
    checkpoint = find_checkpoint(str(run))
    assert (checkpoint.step, checkpoint.settings.exchange) == (6, "float32")
    assert synthesiser_of(checkpoint).sample(0, 2).images.shape == (2, 3, 16, 16)
    with pytest.raises(RunError, match=r"image\.safetensors is not the state of this stage .* only generate"):
        trained(tiny_run_settings(run, small_shards, max_steps=8))


# -- what killed writers leave behind ------------------------------------------------------------------


def unfinished_attempt(folder: Folder) -> None:
    for name in ("LL1.safetensors", "LL1.json"):
        folder.write(name, b"the rest never came")


def test_attempts_that_came_to_nothing_are_deleted_by_who_has_the_lease(
    folder: Folder, small_shards: Path, run: Path
) -> None:
    root = folder.child("checkpoints")
    for path in filter(Path.is_file, (run / "checkpoints").rglob("*")):
        root.upload(path, path.relative_to(run / "checkpoints").as_posix())
    before = root.list()
    settings = tiny_run_settings(folder.url, small_shards, max_steps=8, keep_checkpoints=3)
    statistics = find_checkpoint(str(run)).statistics()
    unfinished_attempt(root.child("000000003", "of-another"))
    unfinished_attempt(root.child("000000006", "of-another"))
    stranger = CheckpointWriter(settings, statistics, "")
    stranger.prune_unfinished()  # it may not: somebody else may be writing them
    assert len(root.list()) == len(before) + 4
    with Lease(root, LEASE, folder.url) as lease:
        writer = CheckpointWriter(settings, statistics, "", lease, 6)
        unfinished_attempt(writer.folder(8))
        writer.prune_unfinished()
        own = [f"000000008/{writer.attempt}/{name}" for name in ("LL1.json", "LL1.safetensors")]
        assert root.list() == sorted({*before, *own, LEASE})
        unfinished_attempt(root.child("000000007", "of-another"))
        writer.commit(8, [])
        assert root.subfolders() == ["000000004", "000000006", "000000008", "rollback"]
        assert not any("of-another" in name for name in root.list())


def test_a_start_deletes_what_the_last_one_left(run: Path, small_shards: Path) -> None:
    quiet = find_checkpoint(str(run)).digest()
    checkpoints = run / "checkpoints"
    for path in checkpoints.glob("000000006/*"):
        shutil.rmtree(path)  # it was killed before the last checkpoint was whole ...
    only_a_part = checkpoints / "000000006" / "killed" / ".LL1.safetensors.0123abcd.part"
    only_a_part.parent.mkdir()
    old, young = run / ".report.html.0123abcd.part", run / ".report.html.4567abcd.part"
    for part in (only_a_part, old, young):
        part.write_bytes(b"a part")
    for part in (only_a_part, old):
        os.utime(part, (1, 1))  # ... long ago
    lock = checkpoints / ".LATEST.lock.part"
    os.utime(lock, (1, 1))
    assert trained(tiny_run_settings(run, small_shards))[2] == quiet
    assert not old.exists()
    assert not only_a_part.parent.exists()
    assert young.exists()
    assert lock.exists()
    assert [len(list(step.iterdir())) for step in sorted(checkpoints.glob("0*"))] == [1, 1, 1]


def test_a_run_at_a_free_pace_is_as_far_as_it_was_last_trained(small_shards: Path, tmp_path: Path) -> None:
    changes = {"exchange": "none", "pace": "free", "image_stage": {"enabled": False},
               "teacher_forcing": {"start": 1, "end": 1}, "plan": {"bands": ["LL1", "HL1"]}, "images": 32}  # fmt: skip
    for limit, last in ((2, 2), (1, 2), (3, 3), (None, 4)):  # who began it set the first one
        settings = tiny_run_settings(tmp_path / "run", small_shards, **changes, max_steps=limit)
        train_components(settings, Events(), lambda own: Events())
        checkpoint = find_checkpoint(settings.run)
        assert set(checkpoint.stage_steps.values()) == {last}
        assert (checkpoint.step, checkpoint.settings.last_step) == (last, last)
