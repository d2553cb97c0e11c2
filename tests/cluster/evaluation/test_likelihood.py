"""Likelihoods of shards of images: of a model whose bits per dimension are known, and what evaluate prints of them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.data.packing import pack
from cluster.evaluation.likelihood import TOTAL, measure_likelihoods
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from cluster.training.train import train
from freqgan.errors import InputError
from freqgan.generation.likelihood import log_likelihoods
from freqgan.pixels import to_pixels
from tests.support.commands import run_command
from tests.support.flows import TINY_FLOW
from tests.support.gaussians import GaussianToy
from tests.support.runs import Events, tiny_run_settings

Capsys = pytest.CaptureFixture[str]
JOINT = {"strict_nesting": True, "high_gans": {1: 1}}


@pytest.fixture(scope="module")
def gaussian_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 images of the Gaussian toy, 8 x 8 pixels of 16 bits."""
    folder = tmp_path_factory.mktemp("gaussian")
    for number, pixels in enumerate(to_pixels(GaussianToy().draw(128, seed=11), 16).numpy()):
        Image.fromarray(np.ascontiguousarray(pixels[0])).save(_made(folder / "images") / f"{number:03d}.png")
    pack(str(folder / "images"), str(folder / "shards"))
    return folder / "shards"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def flow_run(folder: Path, shards: Path, **changes: object) -> Checkpoint:
    flow = {"coarse_network": TINY_FLOW, "band_network": TINY_FLOW}
    base: dict[str, object] = {"plan": {"strict_nesting": True}, "flow": flow, "max_steps": 2}
    base |= {"image_stage": {"enabled": False}, "experts": {"default": "flow"}}
    train(tiny_run_settings(folder, shards, **(base | changes)), Events())
    return find_checkpoint(str(folder))


def test_bits_per_dimension_of_stored_images_are_those_of_the_gaussian(gaussian_shards: Path, tmp_path: Path) -> None:
    """Entropy of N(m, S) in levels of brightness, computed without network, transform or shards."""
    toy = GaussianToy()
    sizes = {"image_size": 8, "channels": 1, "bit_depth": 16}
    checkpoint = flow_run(tmp_path / "run", gaussian_shards, **sizes)
    notes: list[str] = []
    report = measure_likelihoods(checkpoint, toy.exact_model(), str(gaussian_shards), note=notes.append)
    assert report.total is not None
    assert (report.images, report.training_images, report.total.dimensions) == (128, 128, 64)
    entropy = toy.images.entropy / (64 * math.log(2)) + math.log2(65535 / 2)
    assert abs(report.total.bits.value - entropy) < 4 * report.total.bits.error
    assert report.total.bits.error < 0.02
    assert report.total.training_bits is not None
    assert report.total.training_bits.value == pytest.approx(report.total.bits.value, abs=1e-6)  # the same images
    bits = sum(row.dimensions * row.bits.value for row in report.experts)
    assert bits / 64 == pytest.approx(report.total.bits.value, rel=1e-6)
    assert [row.name for row in report.experts] == ["LL1", "HL1", "LH1", "HH1"]
    assert "likelihoods of held-out images: 96 of 128" in notes


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods of all images with few steps on the way to the noise: for tests of what is done with them."""
    monkeypatch.setitem(log_likelihoods.__wrapped__.__kwdefaults__, "steps", 4)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("brief_critic", "few_steps")
def test_evaluate_prints_and_stores_likelihoods(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    flow_run(tmp_path / "run", small_shards, classes=2, plan=JOINT)
    (tmp_path / "more").mkdir()
    for i in range(128):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(_made(tmp_path / "more" / "ab"[i % 2]) / f"{i}.png")
    pack(str(tmp_path / "more"), str(tmp_path / "held-out"))
    arguments = ("evaluate", tmp_path / "run", "--data", tmp_path / "held-out", "--count", 64, "--no-learned")
    outcome = run_command(capsys, *arguments, "--json", tmp_path / "scores.json")
    assert outcome.code == 0, outcome.err
    assert "Log-likelihoods of 128 held-out and 96 training images" in outcome.out
    assert "The total is bits per dimension of pixels." in outcome.out
    stored = json.loads((tmp_path / "scores.json").read_text())["likelihood"]["bands"]
    assert list(stored) == ["LL1", "HL1+LH1+HH1", TOTAL]
    total = stored[TOTAL]
    assert total["dimensions"] == 768
    # Noise is far less likely than the smooth pictures of training.
    assert total["bits_per_dimension"]["value"] > total["bits_per_dimension_training"]["value"] + 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"transform": "dwt:bior4.4"}, "no likelihoods: dwt:bior4.4 is not orthonormal for images of 16 x 16 pixels"),
        ({"experts": {"LL1": "flow"}}, "Not all bands are made by flow experts, so there is no total."),
        ({"experts": {}, "image_stage": {"enabled": True}}, ""),
    ],
)
@pytest.mark.usefixtures("few_steps")
def test_what_else_is_printed(
    changes: dict[str, object], line: str, capsys: Capsys, small_shards: Path, tmp_path: Path
) -> None:
    from launch.console.likelihood_table import print_likelihoods

    checkpoint = flow_run(tmp_path / "run", small_shards, **changes)
    report = print_likelihoods(checkpoint, synthesiser_of(checkpoint), str(small_shards), note=lambda _: None)
    out = capsys.readouterr().out
    assert line in out
    assert bool(report) == ("no total" in line)
    assert bool(out) == bool(line)


@pytest.mark.usefixtures("few_steps")
def test_training_images_that_are_gone_are_told(small_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shards, tmp_path / "shards")
    checkpoint = flow_run(tmp_path / "run", tmp_path / "shards", plan=JOINT)
    shutil.rmtree(tmp_path / "shards")
    notes: list[str] = []
    report = measure_likelihoods(checkpoint, synthesiser_of(checkpoint), str(small_shards), note=notes.append)
    assert (report.images, report.training_images) == (96, 0)
    assert all(row.training_bits is None for row in report.experts)
    assert [note for note in notes if note.startswith("no likelihoods of training images to compare with: ")]


def test_labels_that_the_model_does_not_know_are_refused(small_shards: Path, tmp_path: Path) -> None:
    checkpoint = flow_run(tmp_path / "run", small_shards, classes=2)
    (tmp_path / "plain").mkdir()
    for i in range(8):
        Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(tmp_path / "plain" / f"{i}.png")
    pack(str(tmp_path / "plain"), str(tmp_path / "shards"))
    with pytest.raises(InputError, match="have no labels, or others than the model's 0 to 1"):
        measure_likelihoods(checkpoint, synthesiser_of(checkpoint), str(tmp_path / "shards"), note=lambda _: None)
