"""Models with a companion of another kind, through the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import refused, run_command
from tests.support.companions import LINEAR

Capsys = pytest.CaptureFixture[str]
SIZES = (
    "image_stage.unet.width=8", "image_stage.unet.coarse_width=8", "image_stage.diffusion.evaluations=2",
    "image_stage.pool.size=8", "image_stage.pool.every=4",
)  # fmt: skip


def train(capsys: Capsys, data: Path, run: Path, *overrides: str) -> str:
    """Trains the smoke preset and returns the digest of what came of it."""
    outcome = run_command(capsys, "train", "smoke", f"data={data}", f"run={run}", *overrides)
    assert outcome.code == 0, outcome.err
    return run_command(capsys, "digest", run).out.split()[-1]


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"0000{i}.png"), np.float64) for i in range(2)])


def test_the_parts_of_a_blend(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    train(capsys, small_shards, tmp_path / "run", "image_stage.companion=vae", "max_steps=2")
    for part in ("image", "chain", "companion"):
        out = tmp_path / part
        made = run_command(capsys, "generate", tmp_path / "run", "--count", 2, "--out", out, "--part", part)
        assert made.code == 0, made.err
    image, chain, companion = (pixels(tmp_path / part) for part in ("image", "chain", "companion"))
    inside = (chain > 0) & (chain < 255) & (companion > 0) & (companion < 255) & (np.abs(chain - companion) > 20)
    shares = ((image - companion) / np.where(inside, chain - companion, 1))[inside]
    assert np.median(shares) == pytest.approx(0.5, abs=0.1)  # alpha has hardly begun to move
    assert shares.std() < 0.05


@pytest.mark.long
def test_a_blend_goes_on_in_the_middle_of_a_pool(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    chosen = ("image_stage.companion=diffusion", *SIZES)
    whole = train(capsys, small_shards, tmp_path / "whole", *chosen)
    train(capsys, small_shards, tmp_path / "run", *chosen, "max_steps=3")
    assert train(capsys, small_shards, tmp_path / "run", *chosen) == whole
    assert run_command(capsys, "report", tmp_path / "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Conventional generator" not in page
    assert "companion</dt><dd>diffusion" in page
    assert "need not show the same things" in page


def test_a_companion_alone_through_the_commands(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(capsys, small_shards, run, f"image_stage.companion={LINEAR}", "plan.bands=none")
    assert run_command(capsys, "report", run).code == 0
    assert f"One {LINEAR}, no bands" in (run / "report.html").read_text()
    assert (run / "report" / "curves-companion.png").exists()
    assert not (run / "report" / "curves-alpha.png").exists()
    out = ("--count", 1, "--out", tmp_path / "out")
    assert run_command(capsys, "generate", run, *out, "--part", "companion").code == 0
    message = refused(run_command(capsys, "generate", run, *out, "--part", "chain"))
    assert "--part chain: the model has no bands" in message
    message = refused(run_command(capsys, "generate", run, *out, "--part", "companon"))
    assert "no part is called so (did you mean companion" in message


def test_a_model_without_an_image_stage_has_no_companion(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(capsys, small_shards, run, "image_stage=none")
    message = refused(
        run_command(capsys, "generate", run, "--count", 1, "--out", tmp_path / "out", "--part", "companion")
    )
    assert "the model has no image stage, and with it no companion" in message


def test_a_dry_run_tells_the_companion(capsys: Capsys) -> None:
    for kind, bands in (("vae", "all"), ("flow", "none")):
        outcome = run_command(
            capsys, "train", "smoke", "data=x", f"image_stage.companion={kind}", f"plan.bands={bands}", "--dry-run"
        )
        assert outcome.code == 0
        assert kind in outcome.out.partition("order")[2]
