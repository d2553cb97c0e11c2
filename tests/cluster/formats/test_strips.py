"""Strips come back frame by frame, and no block of a JPEG lies in two frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.data.decoding import decode_image
from cluster.formats.arrays import decode_npy
from cluster.formats.source_format import Piece
from cluster.formats.strips import encode_piece, sample_fields, stacked, unstacked
from freqgan.errors import InputError
from tests.support.clips import moving_frames


def test_frames_come_back_from_a_strip() -> None:
    frames = moving_frames(5)
    strip = stacked(frames)
    assert strip.shape == (80, 24, 3)
    assert (strip[16:32] == frames[1]).all()
    assert (unstacked(strip, 5, "x") == frames).all()
    with pytest.raises(InputError, match=r'x has 80 rows, which are not 7 frames of one height.*"frames"'):
        unstacked(strip, 7, "x")


@pytest.mark.parametrize(
    ("kind", "channels", "expected"),
    [
        ("uint8", 1, "png"), ("uint8", 3, "png"), ("uint8", 4, "npy"), ("uint16", 1, "png"), ("uint16", 3, "npy"),
        ("float32", 1, "npy"), ("float32", 12, "npy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("frames", [None, 4])
def test_what_is_stored_loses_nothing(kind: str, channels: int, expected: str, frames: int | None) -> None:
    shape = (9, 7, channels) if frames is None else (frames, 9, 7, channels)
    pixels = np.random.default_rng(3).integers(0, 250 if kind == "uint8" else 65000, shape).astype(kind)
    form, data = encode_piece(Piece(pixels), "x")
    assert form == expected
    assert encode_piece(Piece(pixels.copy()), "x") == (form, data)
    tall = pixels if frames is None else stacked(pixels)
    if form == "npy":
        back = decode_npy(data, "x")
    else:
        back = decode_image(data, "x", channels=1 if channels == 1 else 3, bit_depth=16 if kind == "uint16" else 8)
    assert back.dtype == kind
    assert (back == tall).all()


@pytest.mark.parametrize("height", [8, 16, 24])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_a_jpeg_do_not_touch_each_other(height: int, channels: int) -> None:
    """Each frame is decoded as if it were alone."""
    frames = np.concatenate([moving_frames(1, height, 20, scene)[..., :channels] for scene in range(4)])
    form, data = encode_piece(Piece(frames), "x", quality=85)
    assert form == "jpg"
    back = unstacked(decode_image(data, "x", channels=1 if channels == 1 else 3), 4, "x")
    for number in range(4):
        alone = encode_piece(Piece(frames[number : number + 1]), "x", quality=85)[1]
        assert (decode_image(alone, "x", channels=1 if channels == 1 else 3) == back[number]).all()
    assert np.abs(back.astype(int) - frames).mean() < 3


def test_quality_is_for_strips_of_8_bits() -> None:
    assert encode_piece(Piece(np.zeros((9, 9, 3), np.uint8)), "x", quality=80)[0] == "png"
    assert encode_piece(Piece(np.zeros((2, 9, 9, 1), np.uint16)), "x", quality=80)[0] == "png"
    with pytest.raises(
        InputError, match=r"x has frames of 12 rows, and blocks of a JPEG have 8.*--size a multiple of 8"
    ):
        encode_piece(Piece(np.zeros((2, 12, 9, 3), np.uint8)), "x", quality=80)
    with pytest.raises(InputError, match="x makes a strip of 65600 rows, and a JPEG has at most 65500"):
        encode_piece(Piece(np.zeros((82, 800, 1, 1), np.uint8)), "x", quality=80)


def test_fields_of_a_sample() -> None:
    clip, still = Piece(moving_frames(4), {"fps": 12.5}), Piece(moving_frames(1)[0])
    assert json.loads(sample_fields(clip, {"age": 3}, "x") or b"") == {"age": 3, "frames": 4, "fps": 12.5}
    assert json.loads(sample_fields(clip, {"frames": 4}, "x") or b"") == {"frames": 4, "fps": 12.5}
    assert sample_fields(still, {}, "x") is None
    with pytest.raises(InputError, match="x is described by a field 'frames', 99, and the sample has 4 itself"):
        sample_fields(clip, {"frames": 99}, "x")
