"""``freqgan style``: what it writes of images and folders, and what it refuses."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cluster.storage.folder import Folder
from tests.support.commands import Outcome, refused, run_command
from tests.support.vgg import random_weights

Capsys = pytest.CaptureFixture[str]


def picture(path: Path, height: int, width: int, seed: int, channels: int = 3) -> Path:
    """Waves of random directions, and a corner of another colour."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    waves = [np.sin(rng.normal(0, 0.3) * x + rng.normal(0, 0.3) * y + rng.normal()) for _ in range(channels)]
    pixels = np.stack(waves, axis=-1) * rng.uniform(20, 60, channels) + rng.uniform(90, 160, channels)
    pixels[: height // 2, : width // 3] += 60
    pixels = (pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(path)
    return path


def pixels_of(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def style(capsys: Capsys, *arguments: object) -> Outcome:
    return run_command(capsys, "style", *arguments)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    return picture(tmp_path / "house.png", 60, 85, 0)


@pytest.fixture
def texture(tmp_path: Path) -> Path:
    return picture(tmp_path / "waves.png", 72, 48, 1)


def test_an_image_takes_the_style_of_another(capsys: Capsys, content: Path, texture: Path, tmp_path: Path) -> None:
    done = style(capsys, content, texture, "--out", tmp_path / "out")
    assert done.code == 0, done
    assert done.out.startswith("house-as-waves.png: edges correlate with the content's by 0.")
    assert "energy of every band within" in done.out
    assert done.out.endswith(f"1 image and sheet.png in {tmp_path / 'out'}\n")
    assert done.err == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["house-as-waves.png", "sheet.png"]
    before, after, other = map(pixels_of, (content, tmp_path / "out" / "house-as-waves.png", texture))
    assert after.shape == before.shape
    assert float(np.abs(after.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max()) < 1
    assert float(np.abs(before.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max()) > 10
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (3 * 85 + 2 * 2, 22 + 72)


@pytest.mark.parametrize(
    "options", [[], ["--transform", "radial:2,3"], ["--levels", 1, "--transform", "dct", "--seed", 3]]
)
def test_its_own_style_changes_nothing(capsys: Capsys, content: Path, tmp_path: Path, options: list[object]) -> None:
    assert style(capsys, content, content, "--out", tmp_path, *options).code == 0
    np.testing.assert_array_equal(pixels_of(tmp_path / "house-as-house.png"), pixels_of(content))


def test_no_strength_changes_nothing_and_some_changes_some(
    capsys: Capsys, content: Path, texture: Path, tmp_path: Path
) -> None:
    content, texture = picture(content, 32, 40, 0), picture(texture, 36, 32, 1)
    results = {}
    for name, strengths in {"none": ["0"], "colours": ["0", "LL=1"], "detail": ["LL=0"], "all": ["1", "1=1"]}.items():
        options = [text for strength in strengths for text in ("--strength", strength)]
        done = style(capsys, content, texture, "--out", tmp_path / name, *options)
        assert done.code == 0, done
        assert ("energy of every band" in done.out) == (name == "all")
        results[name] = pixels_of(tmp_path / name / "house-as-waves.png")
    before, other = pixels_of(content), pixels_of(texture)
    np.testing.assert_array_equal(results["none"], before)
    means = {name: x.mean(axis=(0, 1)) for name, x in results.items()}
    assert float(np.abs(means["colours"] - other.mean(axis=(0, 1))).max()) < 3
    assert float(np.abs(means["detail"] - before.mean(axis=(0, 1))).max()) < 3
    assert not np.array_equal(results["detail"], before)


def test_black_in_the_mask_is_left_alone(capsys: Capsys, content: Path, texture: Path, tmp_path: Path) -> None:
    mask = np.zeros((60, 85), dtype=np.uint8)
    mask[:, 40:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = style(capsys, content, texture, "--out", tmp_path / "out", "--mask", tmp_path / "mask.png")
    assert done.code == 0, done
    before, after, other = map(pixels_of, (content, tmp_path / "out" / "house-as-waves.png", texture))
    np.testing.assert_array_equal(after[:, :40], before[:, :40])
    assert float(np.abs(after[:, 40:].mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max()) < 6
    assert (after[:, 40:] != before[:, 40:]).mean() > 0.8


def test_a_mask_has_to_fit(capsys: Capsys, content: Path, texture: Path, tmp_path: Path) -> None:
    Image.new("L", (10, 10), 255).save(tmp_path / "small.png")
    Image.new("L", (85, 60), 0).save(tmp_path / "black.png")
    for name, text in {"small": "10 x 10 pixels, and ", "black": "is black everywhere"}.items():
        done = style(capsys, content, texture, "--out", tmp_path / "out", "--mask", tmp_path / f"{name}.png")
        assert text in refused(done)


def test_grey_images_stay_grey_and_16_bits_stay_16_bits(capsys: Capsys, texture: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = (30_000 + 9_000 * np.sin(np.arange(48) / 5) + rng.normal(0, 200, (40, 48))).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "scan.png")
    grey = picture(tmp_path / "grey.png", 40, 40, 2, channels=1)
    for other, kind, dtype in ((grey, "grey", np.uint16), (texture, "waves", np.uint8)):
        done = style(capsys, tmp_path / "scan.png", other, "--out", tmp_path / "out")
        assert done.code == 0, done
        with Image.open(tmp_path / "out" / f"scan-as-{kind}.png") as image:
            assert np.asarray(image).dtype == dtype
    assert style(capsys, grey, tmp_path / "scan.png", "--out", tmp_path / "out").code == 0
    red, green, blue = np.moveaxis(pixels_of(tmp_path / "out" / "grey-as-scan.png"), -1, 0)
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_every_content_takes_every_style(capsys: Capsys, folder: Folder, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/one.png", "one.png")):
        picture(tmp_path / "contents" / name, 32, 36 + seed, seed)
    (tmp_path / "contents" / "notes.txt").write_text("not an image")
    (tmp_path / "contents" / ".hidden").write_text("neither")
    for seed in range(2):
        picture(tmp_path / "styles" / f"s{seed}.png", 33, 40, 10 + seed)
    with zipfile.ZipFile(tmp_path / "styles.zip", "w") as archive:
        for seed in range(2):
            archive.write(tmp_path / "styles" / f"s{seed}.png", f"s{seed}.png")
    for source in ("styles", "styles.zip") if folder.is_local else ("styles",):
        done = style(capsys, tmp_path / "contents", tmp_path / source, "--out", folder.url)
        assert done.code == 0, done
        assert f"note: {tmp_path / 'contents'}: passed over 1 hidden file, 1 other file" in done.err
        assert done.out.count("edges correlate") == 4
        assert f"4 images and sheet.png in {folder.url}" in done.out
        pairs = ["00000-one-as-s0", "00001-one-as-s1", "00002-one-as-s0", "00003-one-as-s1"]
        assert folder.files() == [*(f"{pair}.png" for pair in pairs), "sheet.png"]


def test_what_is_no_image_is_refused(capsys: Capsys, content: Path, texture: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(content.read_bytes()[:2000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "others" / "old.bmp")
    picture(tmp_path / "tiny.png", 20, 1, 0)
    expected = {
        "text.png": "text.png is no JPEG, PNG or WebP",
        "cut.png": "cut.png is ",
        "empty": "is an empty folder",
        "others": "no JPEG, PNG or WebP, the first is old.bmp",
        "absent.png": "there is no file or folder",
        "tiny.png": "an image of 20 x 1 pixels is too small",
    }
    for name, text in expected.items():
        for pair in ((tmp_path / name, texture), (content, tmp_path / name)):
            assert text in refused(style(capsys, *pair, "--out", tmp_path / "out")), name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--method", "gaty"], "no method is called so (did you mean gatys?)"),
        (["--method", "gatys"], "needs the weights of VGG19: give --vgg FILE"),
        (["--method", "gatys", "--vgg", "{style}", "--levels", 2], "--levels: of the method bands"),
        (["--steps", 3, "--vgg", "{style}"], "--vgg, --steps: of the method gatys"),
        (["--style-weight", 3], "--style-weight: of the method gatys"),
        (["--style-weight", 0, "--method", "gatys"], "0.0 is not above 0"),
        (["--method", "gatys", "--vgg", "absent.pth"], "there is no file or folder absent.pth"),
        (["--method", "gatys", "--vgg", "{style}"], "waves.png is no file of weights"),
        (["--strength", "2"], "from 0 (the content as it is) to 1"),
        (["--strength", "much"], "write VALUE, LEVEL=VALUE or LL=VALUE"),
        (["--strength", "=0.5"], "write VALUE, LEVEL=VALUE or LL=VALUE"),
        (["--strength", "nan"], "write VALUE, LEVEL=VALUE or LL=VALUE"),
        (["--strength", "-1"], "write VALUE, LEVEL=VALUE or LL=VALUE"),
        (["--strength", "HH1=1"], "write VALUE, LEVEL=VALUE or LL=VALUE"),
        (["--strength", "1=1", "--strength", "01=0"], "level 1 has a strength already, 1"),
        (["--strength", "1", "--strength", "0.5"], "all levels has a strength already, 1"),
        (["--strength", "11=1"], "levels are 1 (finest) to 10"),
        (["--strength", "4=1"], "are taken apart into 2 levels"),
        (["--strength", "3=1", "--levels", 2], "levels are 1 (finest) to 2"),
        (["--levels", 9], "too small for 9 levels"),
        (["--levels", 0], "--levels"),
        (["--transform", "dwt:db200"], "unknown wavelet"),
        (["--transform", "radial:2"], "write the number of resolutions"),
        (["--transform", "radial:2,3", "--levels", 3], "levels is 3: make them equal"),
        (["--mask", "absent.png"], "there is no file or folder absent.png"),
        (["--out", "s3:x"], "is no URL of a bucket"),
    ],
)
def test_options_that_cannot_be(
    capsys: Capsys, content: Path, texture: Path, tmp_path: Path, options: list[object], text: str
) -> None:
    given = [str(texture) if option == "{style}" else option for option in options]
    out = [] if "--out" in options else ["--out", tmp_path / "out"]
    assert text in refused(style(capsys, content, texture, *out, *given))
    assert not (tmp_path / "out").exists()


# -- VGG19 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(random_weights(), path, _use_new_zipfile_serialization=False)
    return path


def test_gatys(capsys: Capsys, texture: Path, vgg: Path, tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png", 32, 33, 3)
    options = ("--out", tmp_path, "--method", "gatys", "--vgg", vgg, "--steps", 2, "--style-weight", 1e5)
    done = style(capsys, small, texture, *options)
    assert done.code == 0, done
    assert f"note: {vgg} is no file that is known (sha256 " in done.err
    numbers = (
        done.out.partition("loss of content ")[2].partition("\n")[0].replace(" -> ", ", of style ").split(", of style ")
    )
    first_content, last_content, first_style, last_style = map(float, numbers)
    assert first_content == 0 < last_content
    assert last_style < first_style
    assert pixels_of(tmp_path / "small-as-waves.png").shape == (32, 33, 3)


def test_gatys_takes_no_small_images(capsys: Capsys, texture: Path, vgg: Path, tmp_path: Path) -> None:
    small = picture(tmp_path / "small.png", 31, 40, 3)
    done = style(capsys, small, texture, "--out", tmp_path, "--method", "gatys", "--vgg", vgg)
    assert done.code == 2
    assert "at least 32 x 32 pixels, not (1, 3, 31, 40)" in done.err
