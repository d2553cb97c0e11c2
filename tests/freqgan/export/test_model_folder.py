from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import freqgan
from freqgan.errors import InputError
from freqgan.export.model_folder import CONFIG, WEIGHTS, TrainingRecord, pack_model
from freqgan.model.stage_names import stage_names
from freqgan.tensor_dicts import add_prefix
from tests.support.models import tiny_settings
from tests.support.synthesisers import untrained_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model, with two images that it made before beside it."""
    folder, model = tmp_path_factory.mktemp("model"), untrained_model(tiny_settings(plan={"bands": ["LL1"]}))
    modules = dict(zip(stage_names(model.settings), [*model.generators, model.image], strict=True))
    averages = {name: add_prefix("average", dict(x.state_dict())) for name, x in modules.items() if x is not None}
    training = TrainingRecord(images=12, steps=dict.fromkeys(modules, 3), classes=("cat", "dog"))
    for name, content in pack_model(model.settings, model.chain.statistics, averages, training).items():
        (folder / name).write_bytes(content)
    torch.save(model.sample(0, 2).images, folder / "images.pt")
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(exported, tmp_path / "model")


def test_a_model_makes_the_images_it_made_before(folder: Path) -> None:
    expected = torch.load(folder / "images.pt", weights_only=True)
    assert torch.equal(freqgan.load_model(folder).sample(0, 2).images, expected)


def test_what_makes_images_imports_neither_ray_nor_storage(folder: Path) -> None:
    script = (
        f"import sys, freqgan; assert 'torch' not in sys.modules; freqgan.load_model({str(folder)!r}).sample(0, 1); "
        "print([name for name in ('ray', 's3fs', 'botocore', 'webdataset', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_what_is_no_model_is_told(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path | str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            freqgan.load_model(path)

    refused("s3://bucket/model", "freqgan export s3://bucket/model --out DIR")
    refused(tmp_path / "nowhere", "holds no model, config.json cannot be read")
    weights, config = (folder / WEIGHTS).read_bytes(), (folder / CONFIG).read_text()
    (folder / WEIGHTS).write_bytes(weights[:-4])
    refused(folder, f"model.safetensors is damaged: {len(weights) - 4} bytes .* says {len(weights)} bytes")
    (folder / WEIGHTS).unlink()
    refused(folder, "model.safetensors cannot be read")
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).write_text("{")
    refused(folder, "config.json does not describe a model of freqgan")
    (folder / CONFIG).write_text(json.dumps(json.loads(config) | {"format": 99}))
    refused(folder, "has format 99, and this version of freqgan reads formats up to 1")
    values = json.loads(config)
    values["settings"]["an_idea"] = 3
    (folder / CONFIG).write_text(json.dumps(values))
    refused(folder, "none that freqgan .* knows .an_idea")


def test_no_place_of_the_training_is_in_it(folder: Path) -> None:
    values = json.loads((folder / CONFIG).read_text())
    assert values["settings"]["conditioning"]["run"] == ""
    assert not {"run", "data", "executor"} & values["settings"].keys()
    assert values["training"]["classes"] == ["cat", "dog"]
