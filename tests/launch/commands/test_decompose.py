"""``freqgan decompose``: what it writes is what the transform says, and comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cluster.imaging.pictures import arranged
from freqgan.bands import Band
from freqgan.transforms import parse_transform
from tests.support.commands import Outcome, refused, run_command
from tests.support.jpegs import saved
from tests.support.pngs import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, transparent, written

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    return tmp_path / "colour.png"


@pytest.fixture
def grey_16(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 65536, (24, 32)).astype(np.uint16)).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


def decompose(capsys: Capsys, image: Path, out: Path, *options: object) -> Outcome:
    return run_command(capsys, "decompose", image, "--out", out, *options)


@pytest.mark.parametrize(
    ("options", "bands"),
    [
        (["--transform", "dwt:db2", "--levels", 2], ["HH1", "HH2", "HL1", "HL2", "LH1", "LH2", "LL2"]),
        (["--transform", "dct", "--levels", 1], ["HH1", "HL1", "LH1", "LL1"]),
        (["--transform", "radial:2,3", "--levels", 2], ["LL2", "RA1", "RA2", "RB1", "RB2"]),
        (["--levels", 1, "--packets", "1=1"], [f"{a}{b}1" for a in ("HH", "HL", "LH") for b in ("HH", "HL", "LH", "LL")]
                                              + ["LL1"]),
    ],
)  # fmt: skip
def test_an_image_and_back(
    capsys: Capsys, colour: Path, tmp_path: Path, options: list[object], bands: list[str]
) -> None:
    done = decompose(capsys, colour, tmp_path / "out", "--reconstruct", *options)
    assert done.code == 0, done
    assert "41 x 30 pixels, 3 channels, 8 bits" in done.out
    assert "every pixel is as it was\n" in done.out
    assert sorted(load_file(tmp_path / "out" / "bands.safetensors")) == bands
    for name in bands:
        assert f" {name} " in done.out
    with Image.open(colour) as before, Image.open(tmp_path / "out" / "reconstruction.png") as after:
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


def test_16_bits_stay_16_bits(capsys: Capsys, grey_16: Path, tmp_path: Path) -> None:
    done = decompose(capsys, grey_16, tmp_path / "out", "--levels", 2, "--reconstruct")
    assert "1 channels, 16 bits" in done.out
    assert "every pixel is as it was\n" in done.out
    with Image.open(grey_16) as before, Image.open(tmp_path / "out" / "reconstruction.png") as after:
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


OTHERWISE_READ = {
    "colour of 16 bits": (
        written(np.random.default_rng(0).integers(0, 65536, (16, 24, 3)), COLOUR, 16),
        "3 channels, 8 bits (read with 8 of its 16 bits a sample)",
    ),
    "colour of 16 bits with alpha": (
        written(np.random.default_rng(0).integers(0, 65536, (16, 24, 4)), COLOUR_ALPHA, 16),
        "3 channels, 8 bits (read with 8 of its 16 bits a sample, its transparency laid on white)",
    ),
    "colour with alpha": (
        written(np.random.default_rng(0).integers(0, 256, (16, 24, 4)), COLOUR_ALPHA, 8),
        "3 channels, 8 bits (read with its transparency laid on white)",
    ),
    "grey of 16 bits with alpha": (
        written(np.random.default_rng(0).integers(0, 65536, (16, 24, 2)), GREY_ALPHA, 16),
        "1 channels, 16 bits (read with its transparency laid on white)",
    ),
    "grey of 4 bits with a transparent level": (
        written(np.random.default_rng(0).integers(0, 16, (16, 24, 1)), GREY, 4, transparent(3)),
        "1 channels, 8 bits (read with its transparency laid on white)",
    ),
    "CMYK": (saved("CMYK"), "3 channels, 8 bits (read with CMYK as RGB)"),
}


@pytest.mark.parametrize(("data", "told"), OTHERWISE_READ.values(), ids=OTHERWISE_READ)
def test_what_was_read_otherwise_is_said(capsys: Capsys, tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "image").write_bytes(data)
    done = decompose(capsys, tmp_path / "image", tmp_path / "out", "--levels", 1, "--reconstruct")
    assert done.code == 0, done
    assert told in " ".join(done.out.split())
    assert "every pixel is as it was read" in done.out


def test_animated_and_turned_images_are_said_to_be(capsys: Capsys, tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (16, 24), colour) for colour in ("red", "blue"))
    exif = Image.Exif()
    exif[0x0112] = 6
    red.save(tmp_path / "a.webp", save_all=True, append_images=[blue], exif=exif)
    done = decompose(capsys, tmp_path / "a.webp", tmp_path / "out", "--levels", 1, "--reconstruct")
    text = " ".join(done.out.split())
    assert "24 x 16 pixels, 3 channels, 8 bits (read with the first of its 2 frames, turned upright)" in text


def test_the_picture_shows_every_band_in_its_place(capsys: Capsys, tmp_path: Path) -> None:
    """Stripes along x: of the high bands HL alone is not grey."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert decompose(capsys, tmp_path / "stripes.png", tmp_path / "out", "--levels", 1).code == 0
    with Image.open(tmp_path / "out" / "mosaic.png") as picture:
        shown = np.asarray(picture.convert("L")).astype(int)
    side = shown.shape[0] // 2
    middle = {name: shown[y + side // 2, x + side // 2] for name, (y, x) in
              {"LL": (0, 0), "HL": (0, side), "LH": (side, 0), "HH": (side, side)}.items()}  # fmt: skip
    assert abs(middle["LL"] - 100) <= 2
    assert abs(middle["HL"] - 128) > 30
    assert abs(middle["LH"] - 128) <= 1
    assert abs(middle["HH"] - 128) <= 1


@pytest.mark.parametrize(("spec", "levels", "packets"), [("dwt:haar", 3, {1: 1, 2: 1}), ("radial:3,4", 3, {})])
def test_pictures_of_bands_do_not_overlap(spec: str, levels: int, packets: dict[int, int]) -> None:
    transform = parse_transform(spec, levels, packets)
    bands = [b for b in transform.bands() if b.orientation != "LL" or b.level == levels]
    sizes = {band: transform.band_size((48, 64), band) for band in bands}
    (height, width), places = arranged(sizes, transform.padded_size((48, 64)))
    covered = torch.zeros(height, width)
    for band, (top, left) in places.items():
        rows, columns = sizes[band]
        covered[top : top + rows, left : left + columns] += 1
    assert covered.max() == 1
    assert covered.sum() == sum(rows * columns for rows, columns in sizes.values())
    assert Band(levels, "LL") in places


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--levels", 9], "too small for 9 levels"),
        (["--transform", "dwt:harr"], "did you mean haar"),
        (["--packets", "1"], "--packets 1: write LEVEL=TIMES"),
        (["--packets", "5=1"], "packets: level 5 does not exist"),
    ],
)
def test_what_cannot_be(capsys: Capsys, colour: Path, tmp_path: Path, options: list[object], message: str) -> None:
    assert message in refused(decompose(capsys, colour, tmp_path / "out", *options))


def test_no_image(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("nothing to see")
    assert "text.png" in refused(decompose(capsys, tmp_path / "text.png", tmp_path / "out"))
    assert "missing.png" in refused(decompose(capsys, tmp_path / "missing.png", tmp_path / "out"))
