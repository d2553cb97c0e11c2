from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cluster.run.checkpoints import LEASE, CheckpointWriter, find_checkpoint, has_checkpoints
from cluster.storage.folder import Folder
from cluster.storage.lease import Lease
from freqgan.errors import InputError, RunError
from tests.support.runs import tiny_run_settings, trained


@pytest.fixture(scope="module")
def finished(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("checkpoints") / "run"
    trained(tiny_run_settings(run, small_shards))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def newest(run: Path) -> Path:
    return Path(find_checkpoint(str(run)).folder.url)


def test_layout_and_manifest(run: Path) -> None:
    checkpoint = find_checkpoint(str(run))
    assert checkpoint.step == 6
    names = sorted(path.name for path in newest(run).iterdir())
    stages = ["HH1", "HL1", "LH1", "LL1", "image"]
    expected = [f"{s}.{e}" for s in stages for e in ("json", "safetensors")] + [
        "manifest.json",
        "statistics.safetensors",
    ]
    assert names == sorted(expected)
    assert checkpoint.manifest["data"]["position"] == 48
    assert json.loads((run / "checkpoints" / "LATEST").read_text())["step"] == 6
    updates = {"generator_updates": 6, "discriminator_updates": 6}
    before = {"good.generator_updates": 0, "good.discriminator_updates": 0}
    guard = {"good_step": 0, "signs": 0, "setbacks": 0}
    assert json.loads((newest(run) / "LL1.json").read_text()) == {"step": 6} | updates | before | guard


def test_only_the_newest_are_kept(small_shards: Path, tmp_path: Path) -> None:
    trained(tiny_run_settings(tmp_path / "run", small_shards, keep_checkpoints=2))
    assert sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.is_dir()) == [4, 6]


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
    checkpoint = find_checkpoint(str(run))
    assert checkpoint.step == 4
    assert len(checkpoint.notes) == 1
    assert "checkpoint of step 6 passed over" in checkpoint.notes[0]
    assert ("HL1.safetensors" in checkpoint.notes[0]) == (damage in ("flip", "truncate", "remove"))


def test_training_goes_on_from_the_last_good_one_and_says_so(run: Path, small_shards: Path) -> None:
    quiet = find_checkpoint(str(run)).digest()
    (newest(run) / "image.json").write_text("{}")
    _, events, digest = trained(tiny_run_settings(run, small_shards))
    assert events.first_step == 4
    assert "step 6 passed over" in events.notes[0]
    assert digest == quiet


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
        if record["name"] == "image.safetensors":
            record |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    latest = run / "checkpoints" / "LATEST"
    pointer = json.loads(latest.read_text())
    pointer["manifest_sha256"] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    latest.write_text(json.dumps(pointer))
    checkpoint = find_checkpoint(str(run))
    assert (checkpoint.step, checkpoint.settings.exchange) == (6, "float32")
    assert checkpoint.synthesiser().sample(0, 2).images.shape == (2, 3, 16, 16)
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
        assert root.subfolders() == ["000000004", "000000006", "000000008"]
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
