"""Images that are no squares: trained, resumed, generated, measured, shown, edited and exported like squares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import freqgan
from cluster.data.packing import pack
from cluster.run.trained_model import open_model
from tests.support.commands import refused, run_command
from tests.support.flows import TINY_FLOW
from tests.support.runs import tiny_run_settings, trained, whole_and_resumed
from tests.support.serving import FLOWS

Capsys = pytest.CaptureFixture[str]
HEIGHT, WIDTH = 33, 47
FUSION: dict[str, Any] = {"system": "fusion", "loss": {"kind": "hinge"}}
ALONE: dict[str, Any] = {"plan": {"bands": "none"}}
CROPPED = FLOWS | {"flow": FLOWS["flow"] | {"coarse_network": TINY_FLOW, "crop": {1: 8}}}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 pictures, 48 high and 60 wide, with an edge and a ramp, in shards."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photographs")
    (folder / "pictures").mkdir()
    for number in range(130):
        picture = np.outer(np.linspace(0, 1, 48), np.ones(60))[..., None] * rng.uniform(60, 200, 3)
        picture[:, rng.integers(5, 55) :] = rng.uniform(0, 255, 3)
        noisy = (picture + rng.integers(0, 20, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "pictures" / f"{number:03d}.png")
    pack(str(folder / "pictures"), str(folder / "shards"), shard_samples=60)
    return folder


@pytest.fixture(scope="module")
def runs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of GANs and one of flow experts, of odd sides."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("gan", {}), ("flow", FLOWS)):
        settings = tiny_run_settings(
            folder / name, photographs / "shards", image_size=f"{HEIGHT}x{WIDTH}", levels=2, max_steps=2, **changes
        )
        trained(settings)
    return {name: folder / name for name in ("gan", "flow")}


@pytest.mark.parametrize(
    ("size", "transform", "changes"),
    [
        ("24x40", "dwt:haar", {}),
        ("33x47", "dwt:db2", FLOWS),
        ("20x28", "fft:meyer", {}),
        ("40x24", "radial:2,2", FLOWS),
        ("24x40", "dct", CROPPED),
        ("18x30", "dwt:haar", FUSION),
        ("18x30", "dwt:haar", ALONE),
        pytest.param("33x47", "dwt:haar", FLOWS, marks=pytest.mark.long),
        pytest.param("33x47", "radial:2,2", {}, marks=pytest.mark.long),
        pytest.param("24x40", "fft:shannon", {}, marks=pytest.mark.long),
        pytest.param("24x40", "dct", {}, marks=pytest.mark.long),
        pytest.param("96x160", "dwt:haar", {}, marks=pytest.mark.long),
        pytest.param("96x160", "dwt:haar", FLOWS, marks=pytest.mark.long),
        *(
            pytest.param("16x24", "dwt:haar", ALONE | {"image_stage": {"companion": name}}, marks=pytest.mark.long)
            for name in ("dcgan", "vae", "flow", "diffusion", "flow_matching")
        ),
    ],
)
def test_a_stopped_run_ends_with_the_bytes_of_one_in_one_go(
    size: str, transform: str, changes: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    levels = 1 if "system" in changes or changes == ALONE else 2

    def settings(name: str, steps: int) -> Any:
        return tiny_run_settings(
            tmp_path / name, photographs / "shards", image_size=size, transform=transform, levels=levels,
            max_steps=steps, **changes,
        )  # fmt: skip

    whole, parts = whole_and_resumed(settings)
    assert whole.digest() == parts.digest()
    _, model = open_model(str(tmp_path / "parts"))
    images = model.sample(0, 3).images
    assert images.shape[-2:] == model.settings.size == tuple(map(int, size.split("x")))
    assert torch.equal(images[2:], model.sample(0, 1, first=2).images)


@pytest.mark.usefixtures("brief_critic")
@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_every_command_takes_a_run_of_rectangles(
    kind: str, runs: dict[str, Path], photographs: Path, capsys: Capsys, tmp_path: Path
) -> None:
    run, picture = runs[kind], photographs / "pictures" / "000.png"
    commands: list[tuple[object, ...]] = [
        ("generate", run, "--count", 5, "--out", tmp_path / "generate"),
        ("generate", run, "--interpolate", 1, 2, "--frames", 3, "--out", tmp_path / "way"),
        ("evaluate", run, "--data", photographs / "shards", "--count", 64, "--no-learned"),
        ("report", run),
        ("super-resolve", run, picture, "--out", tmp_path / "super-resolve"),
        ("edit", run, "--resample", "HL1", "--gain", "LL2=0.5", "--count", 2, "--out", tmp_path / "edit"),
        ("export", run, "--out", tmp_path / "export"),
    ]
    if kind == "flow":
        commands.append(("encode", run, picture, "--out", tmp_path / "encode"))
    for command in commands:
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, (command, outcome.err)
    sizes = {
        path.parent.name: Image.open(path).size
        for path in tmp_path.rglob("*.png")
        if path.name in ("00000.png", "000.png", "00000-after.png")
    }
    assert sizes.pop("generate") == (WIDTH, HEIGHT)
    assert set(sizes.values()) == {(WIDTH, HEIGHT)}
    assert {"way", "super-resolve", "edit"} <= sizes.keys()
    page = (run / "report.html").read_text()
    assert f"{WIDTH} x {HEIGHT} px" in page
    assert "24 x 18 px" in page  # bands of level 1: sides are padded to multiples of 4
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"{WIDTH} x {HEIGHT} pixels" in card
    loaded = freqgan.load_model(str(tmp_path / "export"))
    _, model = open_model(str(run))
    assert torch.equal(loaded.sample(3, 2).images, model.sample(3, 2).images)


@pytest.mark.usefixtures("brief_critic")
def test_generated_folders_are_measured_in_their_shape(
    runs: dict[str, Path], photographs: Path, capsys: Capsys, tmp_path: Path
) -> None:
    assert run_command(capsys, "generate", runs["gan"], "--count", 64, "--out", tmp_path / "out").code == 0
    measured = ("evaluate", tmp_path / "out", "--data", photographs / "shards", "--count", 64, "--no-learned")
    outcome = run_command(capsys, *measured, "--size", "16x24")
    assert outcome.code == 0, outcome.err
    assert "fitting all images to 16x24" in outcome.err
    assert "even number of pixels; take 32 or 34" in refused(run_command(capsys, *measured, "--size", "33x46"))
    assert "HEIGHTxWIDTH" in refused(run_command(capsys, *measured, "--size", "33by46"))
