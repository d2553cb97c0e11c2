"""Files of arrays, written by NumPy and tifffile, come back as they are, or are refused by name."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cluster.formats.array_files import frames_of, read_npy, read_npz, read_tiff, still_of
from freqgan.errors import InputError
from tests.support.shards import npy_bytes


def values_of(*shape: int, kind: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(2).integers(0, 250, shape).astype(kind)


def npz_of(**arrays: NDArray[Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    buffer.seek(0)
    return buffer


def tiff_of(values: NDArray[Any], **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    buffer.seek(0)
    return buffer


def test_npy_of_any_order() -> None:
    values = values_of(4, 5, 6)
    for array in (values, np.asfortranarray(values), values.astype(">u2")):
        assert (read_npy(io.BytesIO(npy_bytes(array)), "x") == values).all()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "x is no .npy file"),
        (npy_bytes(values_of(3, 3))[:-1], r"x is cut off: \(3, 3\) of uint16 are 18 bytes"),
        (npy_bytes(values_of(3, 3)) + b" ", "x is longer than its header says"),
        (npy_bytes(np.array(["a"])), "x holds <U1"),
        (npy_bytes(values_of(1, 1)).replace(b"(1, 1)", b"(9**9)"), "x is no .npy file"),
    ],
)
def test_damaged_npy(data: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_npy(io.BytesIO(data), "x")


def test_the_one_array_of_an_npz() -> None:
    values = values_of(3, 4)
    assert (read_npz(npz_of(a=values), "x", None) == values).all()
    assert (read_npz(npz_of(a=values + 1, b=values), "x", "b") == values).all()
    with pytest.raises(InputError, match=r"x holds 2 arrays \(a, b\): name one by --array"):
        read_npz(npz_of(a=values, b=values), "x", None)
    with pytest.raises(InputError, match=r"--array bb: x has no such array \(did you mean b\?\); it has a, b"):
        read_npz(npz_of(a=values, b=values), "x", "bb")
    with pytest.raises(InputError, match="a of x holds object"):
        read_npz(npz_of(a=np.array([None])), "x", None)
    whole = npz_of(a=values_of(50, 50)).getvalue()
    for data in (b"", b"PK", whole[:-30], whole[:60] + b"\xff" * 40 + whole[100:]):
        with pytest.raises(InputError, match=r"x is no .npz file, or is damaged"):
            read_npz(io.BytesIO(data), "x", None)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_tiffs(kind: str, channels: int, layout: str) -> None:
    values = values_of(6, 9, channels, kind=kind)
    photometric = "rgb" if channels in (3, 4) else "minisblack"
    stored = values if layout == "contig" else np.moveaxis(values, 2, 0)
    options: dict[str, Any] = {} if channels == 1 else {"planarconfig": layout}
    if channels == 1:
        stored = values[:, :, 0]
    pages = read_tiff(tiff_of(stored, photometric=photometric, compression="deflate", **options), "x")
    assert pages.dtype == kind
    assert pages.shape == (1, *values.shape)
    assert (pages[0] == values).all()


def test_pages_are_frames_and_white_is_white() -> None:
    values = values_of(5, 6, 9)
    assert (read_tiff(tiff_of(values, photometric="minisblack"), "x")[..., 0] == values).all()
    assert (read_tiff(tiff_of(values, photometric="miniswhite"), "x")[..., 0] == 65535 - values).all()


def test_tiffs_that_are_refused() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(values_of(4, 4), photometric="minisblack")
        writer.write(values_of(4, 5), photometric="minisblack")
    buffer.seek(0)
    with pytest.raises(InputError, match="x has pages of 2 shapes or types"):
        read_tiff(buffer, "x")
    palette = tiff_of(values_of(4, 4, kind="uint8"), photometric="palette", colormap=values_of(3, 256))
    with pytest.raises(InputError, match="x is a TIFF with a palette"):
        read_tiff(palette, "x")
    whole = tiff_of(values_of(40, 40), photometric="minisblack", compression="deflate").getvalue()
    for data in (b"", b"II*\0", whole[: len(whole) // 2]):
        with pytest.raises(InputError, match="x is no TIFF that can be read"):
            read_tiff(io.BytesIO(data), "x")


def test_pages_that_are_cut_off_are_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    whole = tiff_of(values_of(6, 20, 30), photometric="minisblack").getvalue()
    for part in (0.5, 0.9, 0.98):
        with pytest.raises(InputError, match=r"^x is (cut off or damaged behind page [1-5]|no TIFF)"):
            read_tiff(io.BytesIO(whole[: int(len(whole) * part)]), "x")
    assert capsys.readouterr().err == ""


def test_without_tifffile_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r'x: TIFF is read by tifffile, .*pip install "freqgan\[tiff\]"'):
        read_tiff(io.BytesIO(b"II*\0"), "x")


@pytest.mark.parametrize(("shape", "expected"), [((4, 5), (4, 5, 1)), ((4, 5, 12), (4, 5, 12))])
def test_stills(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert still_of(values_of(*shape), "x").shape == expected


@pytest.mark.parametrize(("shape", "expected"), [((4, 5, 6), (4, 5, 6, 1)), ((4, 5, 6, 2), (4, 5, 6, 2))])
def test_frames(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert frames_of(values_of(*shape), "x").shape == expected


def test_shapes_that_are_refused() -> None:
    with pytest.raises(InputError, match=r"frames of images: cut it into clips by --frames"):
        still_of(values_of(9, 4, 5, 3), "x")
    stills: list[tuple[int, ...]] = [(5,), (4, 5, 65), (0, 4), (2, 2, 2, 2, 2)]
    for shape in stills:
        with pytest.raises(InputError, match=r"images are \(height, width\)"):
            still_of(values_of(*shape), "x")
    with pytest.raises(InputError, match="a still image of 3 channels, and clips were asked for"):
        frames_of(values_of(9, 8, 3), "x")
    clips: list[tuple[int, ...]] = [(4, 5), (4, 5, 6, 65), (0, 4, 8)]
    for shape in clips:
        with pytest.raises(InputError, match=r"clips are \(frames, height, width\)"):
            frames_of(values_of(*shape), "x")
