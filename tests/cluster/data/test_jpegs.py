"""JPEGs that libjpeg warns of, or that simplejpeg does not know: junk is told from damage, no early end is missed."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from cluster.data.decoding import decode_image
from freqgan.errors import InputError
from tests.support.jpegs import JUNK, NOISE, RAMP, RARE, inserted, places, saved, segment

FILES = {
    "baseline": saved(),
    "progressive": saved(progressive=True),
    "grey": saved("L"),
    "restarts": saved(restart_marker_blocks=2),
    "4:4:4": saved(subsampling=0),
}


def is_refused(data: bytes) -> bool:
    try:
        decode_image(data, "x")
    except InputError:
        return True
    return False


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data", RARE.values(), ids=RARE)
def test_sampling_that_simplejpeg_does_not_know(data: bytes, channels: Literal[1, 3]) -> None:
    wanted = np.asarray(Image.fromarray(RAMP).convert("L" if channels == 1 else "RGB")).reshape(24, 40, channels)
    with Image.open(io.BytesIO(data)) as image:
        by_pillow = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(24, 40, channels)
    found = decode_image(data, "x", channels=channels)
    assert np.abs(found.astype(int) - wanted).mean() < 6
    np.testing.assert_array_equal(found, by_pillow)


@pytest.mark.parametrize("data", RARE.values(), ids=RARE)
def test_every_cut_of_rare_sampling_is_an_error(data: bytes) -> None:
    assert all(is_refused(data[:length]) for length in range(len(data)))


@pytest.mark.parametrize("data", RARE.values(), ids=RARE)
def test_an_early_end_behind_which_the_end_is_whole(data: bytes) -> None:
    """Data of the last scan cut off anywhere: refused, or the last bits tell nothing."""
    whole = decode_image(data, "x")
    scan = places(data, 0xDA)[-1] + 2
    first = scan + int.from_bytes(data[scan : scan + 2], "big")
    for length in range(first, len(data) - 2):
        cut = data[:length] + b"\xff\xd9"
        assert is_refused(cut) or (length > len(data) - 6 and np.array_equal(decode_image(cut, "x"), whole))


@pytest.mark.parametrize("junk", ["zeros before the end", "noise before a table", "JFIF 0.1", "much behind the end"])
@pytest.mark.parametrize("data", RARE.values(), ids=RARE)
def test_junk_in_rare_sampling(data: bytes, junk: str) -> None:
    np.testing.assert_array_equal(decode_image(JUNK[junk](data), "x"), decode_image(data, "x"))


# -- junk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_junk_is_no_damage(data: bytes, junk: Any) -> None:
    if places(data, 0xC2) and junk is JUNK["odd parameters of the scan"]:
        return  # they mean something there
    np.testing.assert_array_equal(decode_image(junk(data), "x"), decode_image(data, "x"))


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("name", ["baseline", "restarts"])
def test_every_cut_of_a_file_with_junk_is_an_error(name: str, junk: Any) -> None:
    data = junk(FILES[name])
    end = data.rindex(b"\xff\xd9") + 2
    assert all(is_refused(data[:length]) for length in range(end))


def test_junk_in_cmyk() -> None:
    data = saved("CMYK")
    for junk in ("zeros before the end", "noise before a table", "JFIF 0.1"):
        np.testing.assert_array_equal(decode_image(JUNK[junk](data), "x"), decode_image(data, "x"))
        assert is_refused(JUNK[junk](data)[:-20])


def test_junk_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = JUNK["two kinds"](saved(exif=exif))
    np.testing.assert_array_equal(decode_image(data, "x"), decode_image(FILES["baseline"], "x")[::-1, ::-1])


def test_junk_where_memory_is_given() -> None:
    memory = np.empty((24, 40, 3), np.uint8)
    found = decode_image(JUNK["noise before a table"](FILES["baseline"]), "x", into=memory)
    np.testing.assert_array_equal(found, decode_image(FILES["baseline"], "x"))


def scans(data: bytes) -> list[int]:
    """Where the tables and headers of scans begin that come after the data of another scan."""
    return [at for at in places(data, 0xC4, 0xDA) if at > places(data, 0xDA)[0]]


def test_junk_between_scans() -> None:
    data = FILES["progressive"]
    assert len(scans(data)) > 8
    for at in scans(data):
        junk = inserted(data, at, NOISE)
        np.testing.assert_array_equal(decode_image(junk, "x"), decode_image(data, "x"))
        assert all(is_refused(junk[:length]) for length in range(at, len(junk), 5))


@pytest.mark.parametrize("blocks", [1, 2, 20])
def test_junk_in_many_places(blocks: int) -> None:
    """At each restart marker, of which there are 59, 29 and 2."""
    plain = saved(restart_marker_blocks=blocks, subsampling=0, size=2)
    data = plain
    for place in reversed(restarts(plain)):
        data = inserted(data, place, NOISE)
    np.testing.assert_array_equal(decode_image(data, "x"), decode_image(plain, "x"))
    assert all(is_refused(data[:length]) for length in range(0, len(data), len(data) // 20))
    place = restarts(data)[1]
    assert is_refused(data[:place] + data[place + 2 :])


def test_junk_that_is_counted_with_later_junk() -> None:
    """Three bytes before restart markers pass unnoticed, until libjpeg warns of more than there are in any place."""
    data = plain = saved(restart_marker_blocks=2, subsampling=0)
    for place in reversed(restarts(plain)):
        data = inserted(data, place, bytes(3))
    with pytest.raises(ValueError, match="extraneous bytes") as told:
        simplejpeg.decode_jpeg(data, "RGB")
    assert int(str(told.value).split()[3]) > 3
    np.testing.assert_array_equal(decode_image(data, "x"), decode_image(plain, "x"))
    assert all(is_refused(data[:length]) for length in range(0, len(data), 7))


def restarts(data: bytes) -> list[int]:
    return [place for place in places(data, *range(0xD0, 0xD8)) if place > places(data, 0xDA)[0]]


def test_a_scan_that_comes_twice() -> None:
    """libjpeg calls it an inconsistent progression."""
    data = FILES["progressive"]
    first = places(data, 0xDA)[0]
    repeated = data[first : scans(data)[0]]
    twice = inserted(data, first, repeated)
    np.testing.assert_array_equal(decode_image(twice, "x"), decode_image(data, "x"))
    assert all(is_refused(twice[:length]) for length in range(0, len(twice), 3))


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_an_early_end_of_data_is_damage(data: bytes) -> None:
    scan = places(data, 0xDA)[-1]
    assert all(is_refused(data[: scan + 14 + kept] + b"\xff\xd9") for kept in range(0, len(data) - scan - 24, 3))


def test_an_early_end_behind_junk_is_damage() -> None:
    data = FILES["progressive"]
    junk = inserted(data, scans(data)[0], NOISE)
    last = places(junk, 0xDA)[-1]
    assert is_refused(junk[: (last + len(junk)) // 2] + b"\xff\xd9")


def test_a_missing_restart_marker_is_damage() -> None:
    data = FILES["restarts"]
    assert len(restarts(data)) > 1
    assert all(is_refused(data[:place] + data[place + 2 :]) for place in restarts(data))


def test_data_that_no_table_knows_are_damage() -> None:
    """Flipped bits of the data of a scan: what libjpeg calls a bad code or an early end is refused."""
    data = FILES["4:4:4"]
    first = places(data, 0xDA)[0] + 14
    refused = 0
    for bit in range(first * 8, (len(data) - 2) * 8, 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        refused += is_refused(bytes(flipped))
    assert refused > 5


# -- what no decoder here knows --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({4: 12}, "it has 12 bits a sample"),
        ({4: 16}, "it has 16 bits a sample"),
        ({5: 0, 6: 0}, "it has no height but behind its pixels (DNL)"),
        ({1: 0xC5}, "its frame is of the rare kind 0xc5"),
    ],
)
def test_a_frame_that_is_not_known(change: dict[int, int], reason: str) -> None:
    data = bytearray(FILES["baseline"])
    frame = places(bytes(data), 0xC0)[0]
    for offset, value in change.items():
        data[frame + offset] = value
    with pytest.raises(InputError) as told:
        decode_image(bytes(data), "x")
    assert str(told.value) == f"x cannot be decoded ({reason}): convert or remove it"


def test_two_samples_a_pixel() -> None:
    grey = FILES["grey"]
    frame = places(grey, 0xC0)[0]
    two = segment(0xC0, grey[frame + 4 : frame + 9] + b"\2\1\x11\0\2\x11\0")
    data = grey[:frame] + two + grey[places(grey, 0xC4)[0] :]
    with pytest.raises(InputError, match=r"x cannot be decoded \(it has 2 samples a pixel\)"):
        decode_image(data, "x")
