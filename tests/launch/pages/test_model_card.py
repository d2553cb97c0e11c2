"""The card of an exported model says of clips, many channels and floats what they are, and its scripts run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.commands.export import ExportRequest, export
from launch.pages.model_card import made_text, order_text
from tests.support.clip_runs import CLIPS, FRAMES, MANY, SIDE, VOLUMES, clip_run, write_small_clips
from tests.support.flows import flow_settings


@pytest.mark.parametrize(
    ("changes", "made", "order"),
    [
        ({}, "images of 16 x 16 pixels, in colour", ""),
        ({"channels": 1, "bit_depth": 16}, "images of 16 x 16 pixels, in grey, with 16 bits", ""),
        (
            CLIPS,
            "clips of 4 frames of 16 x 16 pixels, in colour",
            "The channels of all 4 frames follow each other, frame by frame.",
        ),
        (
            VOLUMES,
            "volumes of 4 slices of 16 x 16 pixels, in grey, with 16 bits",
            "The channels of all 4 slices follow each other, slice by slice.",
        ),
        (
            MANY,
            "images of 16 x 16 pixels, with 5 channels, of floats from -1024 to 3071",
            "-1 stands for the value -1024 and 1 for 3071.",
        ),
    ],
)
def test_the_card_says_what_the_images_are(changes: dict[str, object], made: str, order: str) -> None:
    settings = flow_settings(**changes)
    assert (made_text(settings), order_text(settings)) == (made, order)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of clips, with a file of ONNX."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder = tmp_path_factory.mktemp("card")
    run = clip_run(
        folder / "run", write_small_clips(folder), plan={"bands": ["tL.LL1", "tH1.LL1"], "strict_nesting": True}
    )
    export(ExportRequest(str(run), str(folder / "moving"), onnx=True), lambda _: None)
    return folder / "moving"


def test_the_script_of_the_card_draws_clips_without_freqgan(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "![Clips of seed 0](samples.webp)" in card
    assert f"(8, {3 * FRAMES}, {SIDE}, {SIDE}). The channels of all" in card
    script = next(code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "onnxruntime" in code)
    code = f"{script}\nimport sys\nassert not {{'freqgan', 'torch'}} & sys.modules.keys()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exported.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    clips = []
    for number in range(8):
        with Image.open(exported.parent / f"{number}.webp") as clip:
            assert getattr(clip, "n_frames", 1) == FRAMES
            clips.append(np.asarray(clip.convert("RGB")))
    assert clips[0].shape == (SIDE, SIDE, 3)
    assert any((clip != clips[0]).any() for clip in clips[1:])


def test_the_samples_beside_the_card_play(exported: Path) -> None:
    with Image.open(exported / "samples.webp") as playing, Image.open(exported / "samples.png") as still:
        assert getattr(playing, "n_frames", 1) == FRAMES
        assert playing.size == still.size
