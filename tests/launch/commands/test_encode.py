"""``freqgan encode``, what is drawn from its file, and edits of real images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cluster.training.train import train
from tests.support.commands import refused, run_command
from tests.support.flows import TINY_FLOW
from tests.support.runs import Events, tiny_run_settings
from tests.support.serving import small_run

Capsys = pytest.CaptureFixture[str]


def flow_run(folder: Path, shards: Path, **changes: object) -> Path:
    flow = {"coarse_network": TINY_FLOW, "band_network": TINY_FLOW}
    settings = tiny_run_settings(
        folder, shards, experts={"default": "flow"}, plan={"strict_nesting": True}, flow=flow, max_steps=2,
        image_stage={"enabled": False}, generation={"evaluations": 10}, **changes,
    )  # fmt: skip
    train(settings, Events())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_shards: Path) -> Path:
    return flow_run(tmp_path_factory.mktemp("encoded") / "run", small_shards)


@pytest.fixture(scope="module")
def run_of_classes(tmp_path_factory: pytest.TempPathFactory, small_shards: Path) -> Path:
    return flow_run(tmp_path_factory.mktemp("classes") / "run", small_shards, classes=2)


def image_file(path: Path, side: int = 16, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_images_come_back_from_their_noises(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    files = [image_file(tmp_path / f"{i}.png", seed=i) for i in range(66)]  # more than one lot
    outcome = run_command(capsys, "encode", run, *files, "--out", tmp_path / "out", "--seed", 3)
    assert outcome.code == 0, outcome.err
    assert "66 images" in outcome.out
    assert float(outcome.out.partition("originals: ")[2].split()[0]) < 1e-3
    for file in (files[0], files[65]):
        assert (pixels(tmp_path / "out" / file.name) == pixels(file)).all()
    assert Image.open(tmp_path / "out" / "side_by_side.png").width == 3 * 128 + 2 * 2
    noises = tmp_path / "out" / "draws.safetensors"
    outcome = run_command(capsys, "generate", run, "--noises", noises, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "66 images of step 2" in outcome.out
    for number in (0, 63, 64, 65):
        assert (pixels(tmp_path / "again" / f"{number:05d}.png") == pixels(files[number])).all()


def test_a_large_image_is_reduced_first(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    outcome = run_command(capsys, "encode", run, image_file(tmp_path / "a.png", 40), "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert Image.open(tmp_path / "out" / "a.png").size == (16, 16)


def test_a_real_image_is_edited(capsys: Capsys, run: Path, run_of_classes: Path, tmp_path: Path) -> None:
    file, out = image_file(tmp_path / "a.png"), tmp_path / "out"
    for model, more in ((run, ()), (run_of_classes, ("--label", 1))):
        outcome = run_command(
            capsys, "edit", model, "--image", file, "--resample", "HL1", "--gain", "HH1=0.5", *more, "--out", out
        )
        assert outcome.code == 0, outcome.err
        before, after = pixels(out / "00000-before.png"), pixels(out / "00000-after.png")
        assert (before == pixels(file)).all()
        blocks = [x.reshape(8, 2, 8, 2, 3).mean((1, 3)) for x in (before, after)]
        inside = (after > 0) & (after < 255)
        whole = inside.reshape(8, 2, 8, 2, 3).all((1, 3))  # but where pixels were cut off at black or white
        assert (before != after).any()
        assert np.abs(blocks[0] - blocks[1])[whole].max() <= 1.0  # LL1 stays, to the rounding of pixels


def test_what_cannot_be_encoded(capsys: Capsys, run: Path, run_of_classes: Path, tmp_path: Path) -> None:
    file, small, out = image_file(tmp_path / "a.png"), image_file(tmp_path / "small.png", 12), tmp_path / "out"
    outcome = run_command(capsys, "encode", run, file, "--out", tmp_path / "ours")
    assert outcome.code == 0
    noises = tmp_path / "ours" / "draws.safetensors"
    tensors = load_file(noises)
    damages = {
        "short": tensors | {"noises": tensors["noises"][:2].contiguous()},
        "nan": tensors | {"noises": torch.full_like(tensors["noises"], float("nan"))},
        "lacking": {name: x for name, x in tensors.items() if name != "rests.HL1"},
        "more": tensors | {"rests.XX": torch.zeros(1)},
        "garbled": tensors | {"generation": torch.tensor([1, 2, 3], dtype=torch.uint8)},
    }
    for name, damaged in damages.items():
        save_file(damaged, tmp_path / f"{name}.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    generate = ("generate", run, "--out", out)
    for arguments, message in (
        (("encode", run, small, "--out", out), "small.png has 12 x 12 pixels, and the model's images 16 x 16"),
        (("encode", run, tmp_path / "none.png", "--out", out), "none.png"),
        (("encode", run, file, "--out", out, "--label", 0), "trained without classes"),
        (("encode", run_of_classes, file, "--out", out), "are of by --class; it has 2: 0=edges, 1=ramps"),
        (("edit", run_of_classes, "--image", file, "--resample", "HL1", "--out", out), "it has 2: 0=edges, 1=ramps"),
        (("encode", run_of_classes, file, "--out", out, "--label", 2), "it has 2: 0=edges, 1=ramps"),
        (("edit", run, "--out", out, "--gain", "HH1=2", "--label", 0), "trained without classes"),
        (generate, "how many images? Give --count"),
        ((*generate, "--noises", noises, "--count", 3), "leave out --count"),
        ((*generate, "--noises", tmp_path / "text.safetensors"), "is no safetensors file"),
        ((*generate, "--noises", tmp_path / "short.safetensors"), "noises has shape (2, 1, 16)"),
        ((*generate, "--noises", tmp_path / "nan.safetensors"), "not finite"),
        ((*generate, "--noises", tmp_path / "lacking.safetensors"), "has no rests.HL1"),
        ((*generate, "--noises", tmp_path / "more.safetensors"), "has rests.XX as well"),
        ((*generate, "--noises", tmp_path / "garbled.safetensors"), "cannot be read; encode the images again"),
        (("generate", run_of_classes, "--noises", noises, "--out", out), "has no labels"),
    ):
        assert message in refused(run_command(capsys, *arguments)), arguments
    assert not out.exists()


def test_gans_have_no_noises_of_images(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    train(tiny_run_settings(tmp_path / "run", small_shards, max_steps=2), Events())
    file = image_file(tmp_path / "a.png")
    encoding = ("encode", tmp_path / "run", file, "--out", tmp_path / "out")
    redrawing = ("edit", tmp_path / "run", "--image", file, "--resample", "HL1", "--out", tmp_path / "out")
    for arguments in (encoding, redrawing):
        message = refused(run_command(capsys, *arguments))
        assert "LL1, HL1, LH1, HH1, the image stage's generator of this model are GANs" in message
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    weighing = ("edit", tmp_path / "run", "--image", file, "--gain", "HL1=2", "--out", tmp_path / "out")
    assert run_command(capsys, *weighing).code == 0  # gains need no noises


def test_generated_images_of_a_class_are_edited(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", small_shards, max_steps=2)
    for command, name in ((("generate",), "00000.png"), (("edit", "--gain", "HH1=1"), "00000-before.png")):
        for category in ("edges", "ramps"):
            out = tmp_path / command[0] / category
            asked = (command[0], run, *command[1:], "--seed", 3, "--count", 1, "--class", category)
            assert run_command(capsys, *asked, "--out", out).code == 0
            assert (out / name).is_file()
    for category in ("edges", "ramps"):
        generated, edited = (tmp_path / "generate" / category, tmp_path / "edit" / category)
        assert (generated / "00000.png").read_bytes() == (edited / "00000-before.png").read_bytes()
    first, second = (tmp_path / "edit" / category / "00000-before.png" for category in ("edges", "ramps"))
    assert first.read_bytes() != second.read_bytes()
