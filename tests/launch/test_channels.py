"""Images of 4 and 12 channels, of 8 and 16 bits and as floats: trained, resumed, generated, measured and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

import freqgan
from cluster.data.packing import pack
from cluster.imaging.image_writing import stored_arrays
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from tests.support.commands import run_command
from tests.support.flows import TINY_FLOW
from tests.support.runs import tiny_run_settings, trained, whole_and_resumed
from tests.support.serving import FLOWS

Capsys = pytest.CaptureFixture[str]
COUNT, HEIGHT, WIDTH = 132, 20, 24
FUSION: dict[str, Any] = {"system": "fusion", "loss": {"kind": "hinge"}}
ALONE: dict[str, Any] = {"plan": {"bands": "none"}}
CROPPED = FLOWS | {"flow": FLOWS["flow"] | {"coarse_network": TINY_FLOW, "crop": {1: 8}}}
KINDS: dict[str, dict[str, Any]] = {
    "rgba": {"channels": 4},
    "bands": {"channels": 12, "bit_depth": 16, "noise": {"dimensions": 64}},
    "floats": {"channels": 4, "bit_depth": 32, "value_range": [-2, 3], "noise": {"dimensions": 32}},
}
"""Kinds of data and what a model of them needs; bands are in TIFFs, the others in .npy files."""


def picture(rng: np.random.Generator, channels: int) -> NDArray[np.float64]:
    """An edge at a random place over a ramp (H, W, C) in [0, 1], each channel of its own strength."""
    ramp = np.linspace(0, 1, HEIGHT)[:, None, None] * rng.uniform(0.2, 0.6, channels)
    edge = np.arange(WIDTH)[None, :, None] >= rng.integers(4, 20)
    return np.asarray(ramp + edge * rng.uniform(0.1, 0.4, channels)) * np.ones((1, WIDTH, 1))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("channels"), np.random.default_rng(0)
    for name in KINDS:
        (folder / f"in-{name}").mkdir()
    for number in range(COUNT):
        np.save(folder / "in-rgba" / f"{number:03d}.npy", (picture(rng, 4) * 255).astype(np.uint8))
        wide = (picture(rng, 12) * 65535).astype(np.uint16)
        tifffile.imwrite(
            folder / "in-bands" / f"{number:03d}.tif", wide, photometric="minisblack", planarconfig="contig"
        )
        np.save(folder / "in-floats" / f"{number:03d}.npy", (5 * picture(rng, 4) - 2).astype(np.float32))
    for name in KINDS:
        pack(str(folder / f"in-{name}"), str(folder / name), shard_samples=60)
    return folder


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Floats by GANs, twelve channels by flow experts."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("floats", {}), ("bands", FLOWS)):
        trained(tiny_run_settings(folder / name, shards / name, max_steps=2, **KINDS[name], **changes))
    return {name: folder / name for name in ("floats", "bands")}


@pytest.mark.parametrize(
    ("kind", "size", "transform", "changes"),
    [
        ("bands", "16x20", "dwt:haar", {}),
        ("floats", "16x20", "dwt:db2", FLOWS),
        ("rgba", "16x24", "radial:1,2", {}),
        ("bands", "16x16", "dct", CROPPED),
        pytest.param("floats", "16x16", "fft:meyer", {}, marks=pytest.mark.long),
        pytest.param("bands", "16x16", "fft:shannon", FLOWS, marks=pytest.mark.long),
        pytest.param("bands", "16x16", "radial:1,3", FLOWS, marks=pytest.mark.long),
        pytest.param("rgba", "16x16", "dwt:haar", FUSION, marks=pytest.mark.long),
        pytest.param("floats", "16x16", "dwt:haar", ALONE, marks=pytest.mark.long),
        pytest.param("floats", "33x47", "dwt:haar", {}, marks=pytest.mark.long),
        pytest.param("bands", "33x47", "dwt:db2", FLOWS, marks=pytest.mark.long),
        pytest.param("bands", "96x160", "dwt:haar", {}, marks=pytest.mark.long),
        pytest.param("floats", "96x160", "dwt:haar", FLOWS, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_ends_with_the_bytes_of_one_in_one_go(
    kind: str, size: str, transform: str, changes: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    def settings(name: str, steps: int) -> Any:
        return tiny_run_settings(
            tmp_path / name, shards / kind, image_size=size, transform=transform, max_steps=steps,
            **(KINDS[kind] | changes),
        )  # fmt: skip

    whole, parts = whole_and_resumed(settings)
    assert whole.digest() == parts.digest()
    _, model = open_model(str(tmp_path / "parts"))
    images = model.sample(0, 3).images
    assert images.shape == (3, model.settings.channels, *model.settings.size)
    assert torch.equal(images[2:], model.sample(0, 1, first=2).images)


@pytest.mark.usefixtures("brief_critic", "brief_likelihood")
@pytest.mark.parametrize("name", ["floats", "bands"])
def test_every_command_takes_a_run_of_many_channels(
    name: str, runs: dict[str, Path], shards: Path, capsys: Capsys, tmp_path: Path
) -> None:
    run = runs[name]
    commands: list[tuple[object, ...]] = [
        ("generate", run, "--count", 3, "--out", tmp_path / "npy"),
        ("evaluate", run, "--data", shards / name, "--count", 64, "--no-learned"),
        ("report", run),
        ("export", run, "--out", tmp_path / "export"),
        ("shards", "info", shards / name, "--grid", tmp_path / "grid.png"),
    ]
    for command in commands:
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, (command, outcome.err)
    assert f"{KINDS[name]['channels']} channels of {KINDS[name]['bit_depth']} bits" in " ".join(outcome.out.split())
    _, model = open_model(str(run))
    expected = stored_arrays(model.sample(0, 3).images, model.settings)
    for number, array in enumerate(expected):
        written = np.load(tmp_path / "npy" / f"{number:05d}.npy", allow_pickle=False)
        assert written.dtype == array.dtype == (np.float32 if name == "floats" else np.uint16)
        np.testing.assert_array_equal(written, array)
    loaded = freqgan.load_model(str(tmp_path / "export"))
    assert torch.equal(loaded.sample(3, 2).images, model.sample(3, 2).images)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("bands", KINDS["bands"] | {"channels": 3}, "has 12 channels, and channels is 3: set channels=12"),
        ("floats", {"channels": 4, "noise": {"dimensions": 32}}, "has floating-point numbers, and bit_depth is 8: set"),
    ],
)
def test_data_of_another_kind_is_refused_before_the_first_step(
    name: str, changes: dict[str, Any], said: str, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        trained(tiny_run_settings(tmp_path / "run", shards / name, max_steps=1, **changes))
