"""Super-resolution and editing: what is given stays, what is asked for changes, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.generation.editing import low_band, redraw, super_resolve, weigh
from freqgan.generation.synthesiser import Synthesiser
from tests.support.commands import refused, run_command
from tests.support.models import TinyRun, pictures, tiny_settings

Capsys = pytest.CaptureFixture[str]
NO_GAINS = ("nan", "-nan", "inf", "-inf", "1e400", "infinity", "1_0", "0x1", "", "true", "1,5")
STRICT = {"levels": 2, "plan": {"strict_nesting": True}}


def model_of(**changes: Any) -> Synthesiser:
    run = TinyRun(tiny_settings(**changes))
    for step in range(2):
        run.step(step)
    return run.synthesiser()


@pytest.mark.parametrize("transform", ["dwt:haar", "dwt:bior2.2"])
@pytest.mark.parametrize("level", [1, 2])
def test_the_low_band_of_the_output_is_the_input(level: int, transform: str) -> None:
    model = model_of(**STRICT, transform=transform)
    truth = pictures(model.settings, 3).float() / 127.5 - 1
    low = low_band(model, truth, level)
    assert low.shape[-1] == 16 >> level
    made = super_resolve(model, low, level, model.draws(0, 3))
    assert made.shape == truth.shape
    torch.testing.assert_close(low_band(model, made, level), low, atol=1e-5, rtol=0)
    other = super_resolve(model, low, level, model.draws(1, 3))
    assert not torch.allclose(made, other, atol=1e-4)


def test_with_refiners_the_low_band_of_the_finest_level_stays_too() -> None:
    model = model_of(levels=2)
    truth = pictures(model.settings, 3).float() / 127.5 - 1
    made = super_resolve(model, low_band(model, truth, 1), 1, model.draws(0, 3))
    torch.testing.assert_close(low_band(model, made, 1), low_band(model, truth, 1), atol=1e-5, rtol=0)


def test_what_cannot_be_enlarged() -> None:
    model = model_of(**STRICT)
    with pytest.raises(InputError, match="level 1 has 8 x 8 pixels"):
        super_resolve(model, torch.zeros(2, 3, 4, 4), 1, model.draws(0, 2))
    alone = model_of(levels=2, plan={"bands": "none"})
    with pytest.raises(InputError, match="no GAN for the bands of level 1"):
        super_resolve(alone, torch.zeros(2, 3, 8, 8), 1, alone.draws(0, 2))


@pytest.mark.parametrize("changes", [STRICT, {"levels": 2, "classes": 2, "plan": {"low_gans": {2: 2}}}])
def test_redrawing_changes_the_named_bands_alone(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    assert model.image is not None
    model.image.blend.logits.data.fill_(100)  # the chain alone, so that its bands are those of the image
    draws = model.draws(0, 5)
    before = model(draws.noises, draws.targets, draws.choices).images
    assert torch.equal(model.sample(0, 64).images[:5], model.sample(0, 5).images)
    torch.testing.assert_close(before, model.sample(0, 5).images, atol=1e-5, rtol=0)
    after = redraw(model, draws, ["HL1", "HH2"], model.draws(1, 5))
    old, new = (model.chain.transform.analyse(x) for x in (before, after))
    for band in old:
        if changes is STRICT or band.level == 1:  # a refiner moves all bands of the level below a little
            depends = str(band) in ("HL1", "HH2", "LL1")
            assert torch.allclose(old[band], new[band], atol=1e-5) != depends, band


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_gains_that_leave_no_picture_are_refused(gain: float) -> None:
    model = model_of(levels=1)
    with pytest.raises(InputError, match="gains"):
        weigh(model, pictures(model.settings, 2).float() / 127.5 - 1, {"HH1": gain})


def test_gains_multiply_their_bands_alone() -> None:
    model = model_of(levels=2)
    images = model.sample(0, 4).images
    after = weigh(model, images, {"HH1": 1.5, "HL2": 0.0})
    old, new = (model.chain.transform.analyse(x) for x in (images, after))
    torch.testing.assert_close(new[Band(1, "HH")], 1.5 * old[Band(1, "HH")], atol=1e-5, rtol=0)
    assert float(new[Band(2, "HL")].abs().max()) < 1e-5
    for band in (Band(1, "HL"), Band(1, "LH"), Band(2, "LL"), Band(2, "HH")):
        torch.testing.assert_close(new[band], old[band], atol=1e-5, rtol=0)
    torch.testing.assert_close(weigh(model, images, {"LL1": 1.0}), images, atol=1e-5, rtol=0)
    doubled = model.chain.transform.analyse(weigh(model, images, {"LL1": 2.0}))
    torch.testing.assert_close(doubled[Band(2, "HL")], 2 * old[Band(2, "HL")], atol=1e-5, rtol=0)
    torch.testing.assert_close(doubled[Band(1, "HL")], old[Band(1, "HL")], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_shards: Path) -> Path:
    from cluster.training.train import train
    from tests.support.runs import Events, tiny_run_settings

    folder = tmp_path_factory.mktemp("edited") / "run"
    settings = tiny_run_settings(folder, small_shards, classes=2, max_steps=2, **STRICT)
    train(settings, Events())
    return folder


def image_file(path: Path, side: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_super_resolve_writes_images_and_compares(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    files = [image_file(tmp_path / f"{i}.png", 16, i) for i in range(64)]
    outcome = run_command(capsys, "super-resolve", run, *files, "--out", tmp_path / "out", "--label", 1)
    assert outcome.code == 0, outcome.err
    for text in (
        "64 images of 16 x 16",
        "larger than 8 x 8, so reduced to that first and then compared: 64 images",
        "low band of the output",
        "PSNR",
        "bicubic",
        "sliced Wasserstein",
    ):
        assert text in outcome.out
    assert Image.open(tmp_path / "out" / "63.png").size == (16, 16)
    assert Image.open(tmp_path / "out" / "side_by_side.png").size == (4 * 128 + 3 * 2, 22 + 16 * 128 + 15 * 2)
    (tmp_path / "other").mkdir()
    same = image_file(tmp_path / "other" / "0.png", 16, 7)
    outcome = run_command(capsys, "super-resolve", run, files[0], same, "--out", tmp_path / "out1")
    assert outcome.code == 0, outcome.err
    names = sorted(path.name for path in (tmp_path / "out1").iterdir())
    assert names == ["00000-0.png", "00001-0.png", "side_by_side.png"]
    small = image_file(tmp_path / "small.png", 4)
    outcome = run_command(capsys, "super-resolve", run, small, "--out", tmp_path / "out2", "--from-level", 2)
    assert outcome.code == 0, outcome.err
    assert "PSNR" not in outcome.out
    low = np.asarray(Image.open(tmp_path / "out2" / "small.png"), np.float64).reshape(4, 4, 4, 4, 3).mean((1, 3))
    inside = np.abs(low - np.asarray(Image.open(small))) < 1  # but where pixels were cut off at black or white
    assert inside.mean() > 0.3


def test_edit_writes_before_and_after(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "out", "--resample", "HL1,LH1", "--gain", "HH1=1.5", "--count", 3)
    outcome = run_command(capsys, "edit", run, *arguments)
    assert outcome.code == 0, outcome.err
    before, after = (np.asarray(Image.open(tmp_path / "out" / f"00002-{w}.png")) for w in ("before", "after"))
    assert (before != after).any()
    run_command(capsys, "generate", run, "--count", 3, "--out", tmp_path / "generated")
    assert (np.asarray(Image.open(tmp_path / "generated" / "00002.png")) == before).all()


def test_bands_are_redrawn_from_another_seed_than_that_of_the_images(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    def edited(name: str, *arguments: object) -> np.ndarray:
        out = tmp_path / name
        outcome = run_command(
            capsys, "edit", run, "--out", out, "--seed", 1, "--resample", "HL1", "--count", 1, *arguments
        )
        assert outcome.code == 0, outcome.err
        before, after = (np.asarray(Image.open(out / f"00000-{name}.png")) for name in ("before", "after"))
        assert (before != after).any()
        return after

    assert (edited("left out") == edited("given", "--resample-seed", 2)).all()
    same = ("--seed", 3, "--resample", "HL1", "--resample-seed", 3, "--out", tmp_path / "same")
    message = refused(run_command(capsys, "edit", run, *same))
    assert "--resample-seed 3 is the seed of the images" in message
    assert "leave it out, and it is 4" in message
    assert not (tmp_path / "same").exists()
    weighed = run_command(
        capsys, "edit", run, "--seed", 3, "--resample-seed", 3, "--gain", "HH1=2", "--count", 1, "--out", tmp_path / "w"
    )
    assert weighed.code == 0, weighed.err


def test_what_cannot_be_edited(capsys: Capsys, run: Path, tmp_path: Path) -> None:
    odd, out = image_file(tmp_path / "odd.png", 12), ("--out", tmp_path / "out")
    text = tmp_path / "text.png"
    text.write_text("no image")
    for arguments, message in (
        (("super-resolve", run, odd, *out), "has 12 x 12 pixels; give 8 x 8 to be enlarged from level 1, or at least"),
        (("super-resolve", run, odd, *out, "--from-level", 3), "levels 1 (finest) to 2"),
        (("super-resolve", run, tmp_path / "none.png", *out), "none.png"),
        (("super-resolve", run, text, *out), "text.png"),
        (("super-resolve", run, image_file(tmp_path / "8.png", 8), *out, "--class", 2), "it has 2: 0=edges, 1=ramps"),
        (("edit", run, *out), "nothing to do"),
        (("edit", run, *out, "--resample", "HL3"), "no band is called 'HL3'"),
        (("edit", run, *out, "--resample", "LL1"), "no band is called 'LL1'"),
        (("edit", run, *out, "--gain", "HH1"), "--gain HH1: write BAND=FACTOR"),
        (("edit", run, *out, "--gain", "HH1=x"), "--gain HH1=x"),
        (("edit", run, *out, "--gain", "XX1=2"), "no band is called 'XX1'"),
        *((("edit", run, *out, "--gain", f"HH1={gain}"), "BAND=FACTOR, a finite number") for gain in NO_GAINS),
        (("edit", run, *out, "--gain", "HH1=1e300"), "so large that pixels are no numbers any more"),
        (("edit", run, *out, "--gain", "HH1=2", "--gain", "HH1 = 3"), "HH1 has a gain already, 2"),
        (("decompose", odd, *out, "--packets", "1=1,1=2"), "level 1 is given twice"),
    ):
        assert message in refused(run_command(capsys, *arguments))
    assert not (tmp_path / "out").exists()
