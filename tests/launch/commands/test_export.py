"""``freqgan export``: a model leaves its run, and is what it was there."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import freqgan
from cluster.storage.folder import Folder, open_folder
from freqgan.pixels import to_pixels
from tests.support.commands import ROOT, refused, run_command
from tests.support.runs import tiny_run_settings, trained

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step of one band and a companion, with two classes."""
    folder = tmp_path_factory.mktemp("export") / "edges"
    plan = {"bands": ["LL1"]}
    trained(tiny_run_settings(folder, small_shards, plan=plan, classes=2, max_steps=1, checkpoint_every=1))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    from launch.commands.export import ExportRequest, export

    folder = run.parent / "exported"
    lines = export(ExportRequest(str(run), str(folder), onnx=True, license="cc-by-4.0"), lambda _: None)
    assert any("pixels differ by at most" in line for line in lines)
    return folder


def png(folder: Path, number: int) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{number:05d}.png"))


def test_a_folder_makes_the_images_of_its_run(capsys: Capsys, run: Path, exported: Path, tmp_path: Path) -> None:
    for source, out in ((run, "a"), (exported, "b")):
        outcome = run_command(capsys, "generate", source, "--count", 2, "--class", "ramps", "--out", tmp_path / out)
        assert outcome.code == 0, outcome.err
    assert (png(tmp_path / "a", 1) == png(tmp_path / "b", 1)).all()
    images = freqgan.load_model(exported).sample(0, 2).images
    again = run_command(capsys, "generate", run, "--count", 2, "--out", tmp_path / "c")
    assert again.code == 0, again.err
    assert (to_pixels(images)[1].permute(1, 2, 0).numpy() == png(tmp_path / "c", 1)).all()


def python_blocks(text: str) -> list[str]:
    """The scripts that a page shows."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def check_onnx_script(text: str, folder: Path) -> None:
    """The script of a page draws eight images in ``folder``, and needs no freqgan for it."""
    script = next(code for code in python_blocks(text) if "onnxruntime" in code)
    code = f"{script}\nimport sys\nassert not {{'freqgan', 'torch'}} & sys.modules.keys()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pictures = [np.asarray(Image.open(folder / f"{number}.png")) for number in range(8)]
    assert pictures[0].shape == (16, 16, 3)
    assert any((picture != pictures[0]).any() for picture in pictures[1:])


def test_the_scripts_of_the_documentation_run_on_a_model_of_classes(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    shutil.copytree(exported, tmp_path / "mine")
    check_onnx_script(text, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shown.py").write_text("\n".join(code for code in python_blocks(text) if "onnxruntime" not in code))
    names = runpy.run_path("shown.py")
    pixels, quick = names["pixels"].int(), to_pixels(names["image"]).int()
    assert pixels.shape == (8, 3, 16, 16)
    assert int((quick[0] - pixels[0]).abs().max()) <= 1
    ramps = names["model"].sample(0, 8, targets=torch.ones(8, dtype=torch.int64)).images
    assert torch.equal(names["ones"], ramps)
    assert not torch.equal(names["ones"], names["images"])


def test_the_card_says_what_it_is_and_its_script_draws_images_without_freqgan(exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    front, _, text = card.removeprefix("---\n").partition("\n---\n")
    assert "license: cc-by-4.0" in front
    assert "library_name: freqgan" in front
    assert "pipeline_tag" not in front
    assert "- image-generation\n- class-conditional\n- " in front
    assert "# exported" in text
    assert "| classes | edges, ramps |" in text
    assert "| `noise` | (B, " in text
    assert "| `label` | (B) | int64 | number of the class, below 2 |" in text
    assert "pixels differ by at most" in text
    shutil.copytree(exported, tmp_path / "exported")
    check_onnx_script(text, tmp_path)
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "config.json", "model.onnx", "model.safetensors", "samples.png",
    ]  # fmt: skip
    assert str(exported.parent) not in (exported / "config.json").read_text()


def test_it_goes_to_a_bucket_and_back(capsys: Capsys, exported: Path, folder: Folder, tmp_path: Path) -> None:
    assert run_command(capsys, "export", exported, "--out", folder.url).code == 0
    assert run_command(capsys, "export", folder.url, "--out", tmp_path / "back").code == 0
    for name in ("config.json", "model.safetensors", "samples.png"):
        assert (tmp_path / "back" / name).read_bytes() == (exported / name).read_bytes()
    damaged = open_folder(folder.url)
    damaged.write("model.safetensors", damaged.read("model.safetensors")[:-1])
    assert "model.safetensors is damaged" in refused(
        run_command(capsys, "generate", folder.url, "--count", 1, "--out", tmp_path / "x")
    )


def test_what_an_exported_model_is_not(capsys: Capsys, run: Path, exported: Path, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        return refused(run_command(capsys, *arguments))

    assert "averaged weights alone" in said("digest", exported)
    at = said("generate", exported, "--count", 1, "--at-images", 8, "--out", tmp_path)
    assert "is an exported model, of one checkpoint" in at
    assert "no best checkpoint" in said("export", exported, "--best", "--out", tmp_path / "m")
    assert "is the folder that is exported" in said("export", exported, "--out", exported)
    assert "holds a run" in said("export", exported, "--out", run)
    assert "is not there" in said("export", tmp_path / "nowhere", "--out", tmp_path / "m")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "does not describe a model of freqgan" in said("generate", tmp_path / "odd", "--count", 1, "--out", tmp_path)
