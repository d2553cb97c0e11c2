"""What a person can get wrong: every case is refused with exit 2, one message that says the remedy, no traceback."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.commands import Outcome, refused, run_command, run_process
from tests.support.runs import write_small_shards

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_folder(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run; tests that damage it copy it first."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as leaving:
        main(["train", "smoke", f"data={small_shards}", f"run={folder}"])
    assert leaving.value.code == 0
    return folder


def train(capsys: Capsys, *overrides: str) -> Outcome:
    return run_command(capsys, "train", "smoke", *overrides)


def picture(side: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


# -- data ------------------------------------------------------------------------------------------


def test_no_such_folder_to_pack(capsys: Capsys, tmp_path: Path) -> None:
    message = refused(run_command(capsys, "shards", "pack", tmp_path / "missing", tmp_path / "shards"))
    assert f"no folder {tmp_path}/missing" in message
    assert not (tmp_path / "shards").exists()


def test_an_empty_folder_to_pack(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    message = refused(run_command(capsys, "shards", "pack", tmp_path / "images", tmp_path / "shards"))
    assert "empty folder" in message
    assert "JPEG, PNG or WebP" in message


def test_an_image_that_cannot_be_read_is_named(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.png").write_bytes(picture())
    (tmp_path / "images" / "torn.png").write_bytes(picture()[:40])
    message = refused(run_command(capsys, "shards", "pack", tmp_path / "images", tmp_path / "shards"))
    assert "torn.png" in message
    assert "good.png" not in message
    assert not list(tmp_path.glob("shards/*.tar"))


def test_training_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = refused(run_process("train", "smoke", f"data={tmp_path}/missing", f"run={tmp_path}/run"))
    assert f"{tmp_path}/missing" in message


def test_training_without_naming_data(capsys: Capsys, tmp_path: Path) -> None:
    assert "no shards are named; set data=" in refused(train(capsys, "data=", f"run={tmp_path}/run"))


def test_training_on_a_folder_of_images_says_to_pack_them(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(picture())
    message = refused(train(capsys, f"data={tmp_path}/images", f"run={tmp_path}/run"))
    assert "1 .png" in message
    assert "freqgan shards pack" in message


def test_a_shard_without_images(capsys: Capsys, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "texts.tar", {"a.txt": b"text", "b.txt": b"text"})
    message = refused(train(capsys, f"data={shard}", f"run={tmp_path}/run"))
    assert "texts.tar has no images" in message
    assert "2 .txt" in message


def test_an_unreadable_image_in_a_shard_is_named(capsys: Capsys, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "images.tar", {f"{i}.png": picture() for i in range(4)} | {"torn.png": picture()[:40]})
    left_out = train(capsys, f"data={shard}", f"run={tmp_path}/run")
    assert left_out.code == 0
    assert f"torn.png in {shard} is damaged or cut off" in left_out.err
    assert "damage 1 of at most 16" in left_out.err
    stopped = train(capsys, f"data={shard}", f"run={tmp_path}/strict", "max_damaged=0")
    assert stopped.code == 3
    assert f"torn.png in {shard} is damaged or cut off" in stopped.err
    assert "max_damaged" in stopped.err
    assert "Traceback" not in stopped.err


def test_classes_asked_of_images_without_labels(capsys: Capsys, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "images.tar", {"0.png": picture()})
    message = refused(train(capsys, f"data={shard}", f"run={tmp_path}/run", "classes=3"))
    assert "0.png" in message
    assert "set classes=0" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_gpu_asked_for_where_there_is_none(capsys: Capsys, tmp_path: Path, executor: str) -> None:
    """At once: no Ray is started, and none is waited for."""
    shard = write_tar(tmp_path / "images.tar", {"0.png": picture()})
    message = refused(train(capsys, f"data={shard}", f"run={tmp_path}/run", "device=cuda", f"executor={executor}"))
    assert "device: cuda was asked for and this process sees no GPU; set device=auto or device=cpu" in message
    assert not (tmp_path / "run").exists()


# -- settings --------------------------------------------------------------------------------------


def test_a_misspelt_setting() -> None:
    assert "did you mean optimiser.learning_rate" in refused(run_process("train", "smoke", "optimizer.learning_rate=1"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["transform=dwt:harr"], ["'harr'", "did you mean haar"]),
        (["levels=6", "image_size=64"], ["levels: 6", "image_size 64", "the largest that fits is 4"]),
        (["levels=2", "noise.dimensions=16", "plan.high_gans.1=6"], ["dimensions = 16", "noise.dimensions to 64"]),
        (["noise.training=split", "noise.dimensions=3"], ["set noise.dimensions to 4"]),
        (["levls=2"], ["'levls'", "did you mean levels"]),
        (["batch=0"], ["batch = 0", "greater than or equal to 1"]),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(capsys: Capsys, overrides: list[str], expected: list[str]) -> None:
    message = refused(train(capsys, *overrides))
    assert [part for part in expected if part not in message] == [], message


def test_an_unknown_preset(capsys: Capsys) -> None:
    assert "did you mean cifar10" in refused(run_command(capsys, "train", "cifar-10"))


# -- run folders -----------------------------------------------------------------------------------


def test_a_run_folder_of_other_settings_names_the_differing_keys(
    capsys: Capsys, run_folder: Path, small_shards: Path
) -> None:
    changes = ["optimiser.learning_rate=0.001", "batch=4"]
    message = refused(train(capsys, f"data={small_shards}", f"run={run_folder}", *changes))
    assert "optimiser.learning_rate is 0.008 there and 0.001 here" in message
    assert "batch is 8 there and 4 here" in message
    assert "another run=" in message


def test_a_run_folder_of_other_data(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "images.tar", {f"{i}.png": picture() for i in range(70)})
    message = refused(train(capsys, f"data={shard}", f"run={run_folder}"))
    assert "are not those" in message
    assert str(shard) in message


def test_a_run_folder_below_a_file_cannot_be_written(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(train(capsys, f"data={small_shards}", f"run={tmp_path}/file/run"))
    assert f"cannot write to {tmp_path}/file/run" in message
    assert "name another folder" in message


def test_a_run_folder_where_nobody_may_write(capsys: Capsys, small_shards: Path) -> None:
    message = refused(train(capsys, f"data={small_shards}", "run=/proc/freqgan-run"))
    assert "cannot write to /proc/freqgan-run" in message


def test_generating_into_a_place_that_cannot_be_written(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(run_command(capsys, "generate", run_folder, "--count", 1, "--out", tmp_path / "file" / "out"))
    assert f"cannot write to {tmp_path}/file/out" in message


@pytest.mark.parametrize("command", [["generate", "--count", "1", "--out", "unused"], ["digest"], ["report"]])
def test_a_folder_without_checkpoints(capsys: Capsys, command: list[str], tmp_path: Path) -> None:
    name, *options = command
    message = refused(run_command(capsys, name, tmp_path, *options))
    assert f"{tmp_path} holds no checkpoint" in message


def test_a_label_the_model_does_not_know(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    outcome = run_command(capsys, "generate", run_folder, "--count", 1, "--out", tmp_path / "out", "--label", 3)
    assert "trained without classes; leave --class out" in refused(outcome)
    assert not (tmp_path / "out").exists()


def test_report_data_that_is_named_must_be_there(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    message = refused(run_command(capsys, "report", run_folder, "--data", tmp_path / "missing"))
    assert f"{tmp_path}/missing" in message


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://", "s3://key:secret@bucket/run"])
def test_urls_that_are_no_folder(capsys: Capsys, url: str) -> None:
    message = refused(run_command(capsys, "digest", url))
    assert "secret" not in message


# -- checkpoints that cannot be used ---------------------------------------------------------------


def newest_manifest(run: Path) -> Path:
    return max(run.glob("checkpoints/*/*/manifest.json"))


def copy_of(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "copy"))


def test_a_damaged_checkpoint_is_passed_over_and_named(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    copy = copy_of(run_folder, tmp_path)
    weights = newest_manifest(copy).with_name("HL1.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    outcome = run_command(capsys, "digest", copy)
    assert outcome.code == 0
    assert "note: checkpoint of step 6 passed over" in outcome.err
    assert "HL1.safetensors is damaged" in outcome.err
    assert outcome.out.splitlines()[-1].startswith("step 3 sha256 ")


def test_a_foreign_manifest_is_passed_over_and_named(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    copy = copy_of(run_folder, tmp_path)
    newest_manifest(copy).write_text(json.dumps({"format": 99}))
    outcome = run_command(capsys, "generate", copy, "--count", 1, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "note: checkpoint of step 6 passed over" in outcome.err
    assert "format 99" in outcome.err
    assert "step 3" in outcome.out


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(
    capsys: Capsys, run_folder: Path, small_shards: Path, tmp_path: Path
) -> None:
    copy = copy_of(run_folder, tmp_path)
    expected = run_command(capsys, "digest", run_folder).out
    os.truncate(newest_manifest(copy).with_name("image.safetensors"), 100)
    outcome = train(capsys, f"data={small_shards}", f"run={copy}")
    assert outcome.code == 0
    assert "checkpoint of step 6 passed over" in outcome.err
    assert "resumes after step 3" in outcome.err
    assert run_command(capsys, "digest", copy).out == expected


def test_no_checkpoint_that_can_be_used(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    copy = copy_of(run_folder, tmp_path)
    for manifest in copy.glob("checkpoints/*/*/manifest.json"):
        manifest.write_text("not JSON")
    message = refused(run_command(capsys, "digest", copy))
    assert "no checkpoint can be used" in message
    assert "step 6" in message
    assert "step 3" in message


@pytest.mark.parametrize("override", ["run=runs/${RUN}", "data=${DATA}", "images=${N}", "watch.data=${X}"])
def test_variables_that_were_not_filled_in_are_named(capsys: Capsys, override: str) -> None:
    message = refused(run_command(capsys, "train", "smoke", override))
    assert re.match(
        r"[a-z.]+ = '.*': (\$\{|\{\{).* looks like a variable that was not filled in; give its value", message
    )


def test_an_address_without_ray_is_refused(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    arguments = ("train", "smoke", f"data={small_shards}", f"run={tmp_path / 'run'}", "--address", "127.0.0.1:1")
    assert "--address 127.0.0.1:1: executor=inline" in refused(run_command(capsys, *arguments))


@pytest.mark.parametrize("url", ["s3:/bucket/x", "S3:bucket/x", "s3:"])
def test_urls_that_lack_a_slash_are_no_folders(capsys: Capsys, url: str) -> None:
    message = refused(run_command(capsys, "train", "smoke", f"run={url}"))
    assert message.startswith(f"{url} is no URL of a bucket: write s3://bucket/prefix")


def test_shards_do_not_go_among_the_images_that_are_packed(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    for destination in ("photos", "photos/../photos/"):
        message = refused(run_command(capsys, "shards", "pack", tmp_path / "photos", f"{tmp_path}/{destination}"))
        assert "holds the images that are to be packed: name another folder for the shards" in message
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]


def test_shards_that_are_all_gone_are_told_by_verify(capsys: Capsys, tmp_path: Path) -> None:
    shards = write_small_shards(tmp_path)
    for path in shards.glob("*.tar"):
        path.unlink()
    outcome = run_command(capsys, "shards", "verify", shards)
    assert outcome.code == 3
    assert outcome.out.count("it is in the index and not there") == 3
    assert "3 of 3 shards are damaged" in outcome.err


# -- experts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experts.LL1=flwo"], "experts.LL1 = 'flwo': must be 'gan', 'flow' or 'student'"),
        (["experts=flwo"], "a single word that experts may be: gan, flow, student (did you mean flow?)"),
        (["image_stage=nope"], "cannot be 'nope'; image_stage=none is short for image_stage.enabled=false"),
        (["experts.LL3=flow"], "experts: no expert or band is called 'LL3' (did you mean LL1?)"),
        (["experts.hgih=flow"], "no expert or band is called 'hgih' (did you mean high?)"),
        (["experts.HL1=flow", "plan.high_gans.1=1"], "HL-LH-HH1 generates HL1, LH1, HH1 together, and only some"),
        (
            ["experts=flow", "experts.LH1=gan", "plan.high_gans.1=1"],
            "give every band an expert of its own with plan.high_gans.1=3",
        ),
        (["experts=flow", "image_stage=none", "plan.cycles=2"], "set plan.cycles=1"),
        (
            ["experts=flow", "image_stage=none", "levels=2", "noise.dimensions=64"],
            "LL1 is a flow expert, and refines a low band",
        ),
        (["experts=flow"], "set image_stage.enabled=false, or flow.outputs=samples"),
        (["image_stage=none", "plan.bands=none"], "nothing is left to train; leave one of them out"),
        (["generation.evaluations=5"], "give an even number, or generation.solver=euler"),
        (["generation.guidance.LL2=1"], "generation.guidance: no expert or band is called 'LL2'"),
        (
            ["experts=flow", "image_stage=none", "plan.high_gans.1=1", "generation.guidance.HL1=1"],
            "choose for generation.guidance.HL-LH-HH1",
        ),
        (["flow.crop.3=8"], "flow.crop: level 3 does not exist"),
        (["flow.guide_at=1"], "flow.guide_at = 1: must be less than 1"),
    ],
)
def test_experts_that_cannot_be(capsys: Capsys, overrides: list[str], message: str) -> None:
    assert message in refused(train(capsys, "data=x", *overrides, "--dry-run"))


# -- companions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["image_stage.companion=difusion"], "no companion is called 'difusion' (did you mean diffusion"),
        (["image_stage.companion=a.b:"], "'a.b:' is no path of a class; write it as package.module:Class"),
        (["image_stage.companion=nothing_there:A"], "module nothing_there of nothing_there:A cannot be imported"),
        (["image_stage.companion=torch.nn:Linear"], "torch.nn:Linear cannot be built from the settings"),
        (["image_stage.companion=vae", "image_stage.pool.every=100"], "makes a sample in one pass and needs no pool"),
        (["image_stage.pool.size=8"], "the companion attention makes a sample in one pass"),
        (["image_stage.companion=flow", "image_stage.glow.levels=7"], "image_stage.glow.levels: 7 halvings"),
        (
            ["image_stage.companion=diffusion", "classes=9", "image_stage.pool.size=8"],
            "image_stage.pool.size: 8 samples for 9 classes; give at least one each",
        ),
        (["image_stage.companion=flow_matching", "image_stage.flow_matching.evaluations=5"], "is odd"),
        (["image_stage.companion=diffusion", "image_stage.diffusion.target=x"], "must be 'v' or 'epsilon'"),
        (["image_stage.vae.latent=0"], "image_stage.vae.latent = 0"),
    ],
)
def test_companions_that_cannot_be(capsys: Capsys, overrides: list[str], message: str) -> None:
    assert message in refused(train(capsys, "data=x", *overrides, "--dry-run"))
