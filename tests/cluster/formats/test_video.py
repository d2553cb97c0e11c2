"""Videos that FFmpeg has written come back frame by frame; what is damaged, or leads elsewhere, is refused."""

from __future__ import annotations

import io
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cluster.formats.clips import TimedFrame
from cluster.formats.video import encode_mp4, read_video
from freqgan.errors import InputError
from tests.support.clips import moving_frames, video_bytes


def read(data: bytes) -> list[TimedFrame]:
    return list(read_video(io.BytesIO(data), "x"))


def test_frames_of_a_video() -> None:
    frames = moving_frames(12)
    there = read(video_bytes(frames))
    assert (np.stack([frame.pixels for frame in there]) == frames).all()
    assert [round(frame.start, 3) for frame in there] == [Fraction(40 * number, 1000) for number in range(12)]
    assert there[-1].end == Fraction(12, 25)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "mpeg4"), ("avi", "mpeg4"), ("webm", "libvpx-vp9"), ("mpegts", "mpeg2video")]
)
def test_containers(container: str, codec: str) -> None:
    frames = moving_frames(10, 32, 48)
    there = read(video_bytes(frames, 25, container, codec))
    assert len(there) == 10
    assert [frame.start for frame in there][:2] == [0, Fraction(1, 25)]
    assert np.abs(np.stack([frame.pixels for frame in there]).astype(int) - frames).mean() < 6


@pytest.mark.parametrize(("container", "codec"), [("matroska", "ffv1"), ("mp4", "mpeg4"), ("avi", "mpeg4")])
def test_a_video_that_is_cut_off_is_refused(container: str, codec: str) -> None:
    whole = video_bytes(moving_frames(40, 32, 48), 25, container, codec)
    for part in (0.02, 0.3, 0.6, 0.8):
        with pytest.raises(InputError, match=r"^x (is no video|is cut off|holds no video|is damaged)"):
            read(whole[: int(len(whole) * part)])


def test_flipped_bytes_are_no_crash() -> None:
    """Videos have no checksums: what the decoder cannot tell from a picture is not seen."""
    whole, seen = video_bytes(moving_frames(20, 32, 48), 25, "mp4", "mpeg4"), 0
    for position in range(0, len(whole), len(whole) // 50):
        damaged = bytearray(whole)
        damaged[position] ^= 255
        try:
            read(bytes(damaged))
        except InputError:
            seen += 1
    assert seen > 15


@pytest.mark.parametrize("data", [b"", b"no video at all", b"\x89PNG\r\n\x1a\n" + b"0" * 50, b"RIFF\0\0\0\0AVI "])
def test_what_is_no_video(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^x (is no video|holds no video)"):
        read(data)


@pytest.mark.parametrize(("matrix", "quarters"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_what_a_phone_has_turned_is_upright(matrix: tuple[int, int, int, int], quarters: int) -> None:
    """The matrix of a track says how its frames are shown: ISO/IEC 14496-12, 8.3.2."""
    data = bytearray(video_bytes(moving_frames(3, 32, 48), 25, "mp4", "mpeg4"))
    stored = read(bytes(data))[0].pixels
    a, b, c, d = (value * 2**16 for value in matrix)
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    assert (read(bytes(data))[0].pixels == np.rot90(stored, quarters)).all()


def test_lists_of_other_files_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mkv"
    secret.write_bytes(video_bytes(moving_frames(8)))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        f"v=0\no=- 0 0 IN IP4 {secret}\n",
    ):
        with pytest.raises(InputError, match=r"^x is no video"):
            read(text.encode())


def test_sound_alone_is_no_video() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    with pytest.raises(InputError, match=r"^x (is no video|holds no video)"):
        read(buffer.getvalue())


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r'^x: videos are read and written by PyAV.*pip install "freqgan\[video\]"'):
        read(b"")
    with pytest.raises(InputError, match=r'pip install "freqgan\[video\]"'):
        encode_mp4(moving_frames(2), 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fps", [8, 30000 / 1001])
def test_mp4(channels: int, fps: float) -> None:
    frames = moving_frames(10, 33, 47)[..., :channels]
    data = encode_mp4(frames, fps)
    assert data == encode_mp4(frames.copy(), fps)
    there = read(data)
    assert there[0].pixels.shape == (34, 48, 3)
    assert np.abs(np.stack([frame.pixels[:33, :47] for frame in there]).astype(int) - frames).mean() < 6
    assert float(there[-1].start) == pytest.approx(9 / fps, abs=1e-3)


def test_frames_that_cannot_be_written() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 4, 4, 5\): videos have 1 or 3 channels"):
        encode_mp4(np.zeros((2, 4, 4, 5), np.uint8), 8)
    for fps in (0, float("nan")):
        with pytest.raises(InputError, match="frames a second: give a number above 0"):
            encode_mp4(moving_frames(2), fps)


def test_large_videos_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.formats.video.MOST_PIXELS", 100)
    with pytest.raises(InputError, match="x has 24 x 16 pixels, more than the 100 allowed"):
        read(video_bytes(moving_frames(2)))
