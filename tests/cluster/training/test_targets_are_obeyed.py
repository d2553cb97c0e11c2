"""Targets are obeyed: images that are asked to be bright are, by every part of a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.data.shard_index import index_shards
from cluster.imaging.pictures import encode_png
from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.generation.targets import TargetParts, targets_for
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings, trained
from tests.support.shards import npy_bytes, write_tar

FLOW = {"flow": FLOWS["flow"] | {"optimiser": {"learning_rate": 0.01, "warmup_images": 0}}}
SYSTEMS: dict[str, dict[str, Any]] = {
    "flows": {**FLOWS, **FLOW, "generation": {"evaluations": 8}},
    "GAN": {"plan": {"bands": "none"}, "optimiser": {"learning_rate": 0.005}},
}
STEPS = {"flows": 50, "GAN": 400}
APART = {"flows": 0.35, "GAN": 0.15}
"""How much brighter, on a scale of 2, bright images are to be at least; real ones are so by 0.5."""
KINDS: dict[str, dict[str, Any]] = {
    "class": {"kinds": "class"},
    "embedding": {"kinds": "embedding", "embedding_length": 2},
    "caption": {"kinds": "caption", "caption_bytes": 8, "caption_width": 16, "caption_layers": 1},
}
WORDS = ("dark", "bright")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 pictures of 8x8 pixels of two kinds, dark and bright ones, and all that can be said of that."""
    folder, rng = tmp_path_factory.mktemp("brightness"), np.random.default_rng(0)
    members: list[tuple[str, bytes]] = []
    for number in range(128):
        kind = number % 2
        pixels = (96 + 64 * kind + rng.normal(0, 24, (8, 8, 3))).clip(0, 255).astype(np.uint8)
        files = {"png": encode_png(Image.fromarray(pixels)), "cls": str(kind).encode(), "txt": WORDS[kind].encode()}
        files["npy"] = npy_bytes([100.0 * kind, 7.0])
        members += [(f"{number:03d}.{extension}", content) for extension, content in files.items()]
    write_tar(folder / "0.tar", members)
    index_shards(str(folder))
    return folder


@pytest.mark.parametrize(
    ("system", "kind"), [("flows", "class"), ("flows", "caption"), ("flows", "embedding"), ("GAN", "class")]
)
def test_what_is_asked_to_be_bright_is(system: str, kind: str, data: Path, tmp_path: Path) -> None:
    steps = STEPS[system]
    settings = tiny_run_settings(
        tmp_path / "run", data, image_size=8, classes=2 * (kind == "class"), conditioning=KINDS[kind], max_steps=steps,
        images=8 * steps, checkpoint_every=steps, average={"ramp": 0.02}, **SYSTEMS[system],
    )  # fmt: skip
    trained(settings)
    model = synthesiser_of(find_checkpoint(settings.run))
    asked = torch.arange(32) % 2
    parts = {
        "class": TargetParts(labels=asked),
        "embedding": TargetParts(embedding=torch.stack([100.0 * asked, torch.full((32,), 7.0)], 1)),
        "caption": TargetParts(captions=[WORDS[number] for number in asked.tolist()]),
    }[kind]
    brightness = model.sample(0, 32, targets=targets_for(model, 0, 32, parts)).images.mean((1, 2, 3))
    dark, bright = brightness[asked == 0], brightness[asked == 1]
    assert float(bright.mean() - dark.mean()) > APART[system]
