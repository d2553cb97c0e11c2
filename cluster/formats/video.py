"""Videos in containers (mp4, mkv, webm, mov, avi ...), by PyAV: read into frames, and written as mp4.

PyAV's code is under the BSD licence; the wheels that carry FFmpeg for it hold parts under the GPL, so nothing here
needs it unless videos are read or written: ``pip install "freqgan[video]"``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.formats.arrays import MOST_PIXELS
from cluster.formats.clips import TimedFrame, scene_clips
from cluster.formats.source_format import Conversion, Piece, PieceOptions, Source, SourceFormat, Tally
from freqgan.errors import FreqganError, InputError, first_line

EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2ts", "mts", "ogv", "flv", "wmv", "3gp")
ENCODER = "libvpx-vp9"
"""VP9: free of royalties, under a BSD licence, in PyAV's wheels, and shown by all browsers. The H.264 of these wheels
comes from x264, which is under the GPL."""

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf"
"""Formats of one file. Others are lists of further files, which a video must not make anybody read."""
_LATE_S, _LATE_FRAMES = Fraction(1, 10), 2
"""By how much the last packet of a whole file may end before the time that the file tells, whichever is more."""
_QUALITY = 24
"""The constant quality of VP9, 0 (best) to 63."""


def _library(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError(
            f'{name}: videos are read and written by PyAV, which is not installed: pip install "freqgan[video]"'
        ) from error
    return av


def read_video(file: IO[bytes], name: str) -> Iterator[TimedFrame]:
    """Yield the frames (H, W, 3) of the first video stream, uint8, upright; pixels are taken for squares.

    Raises:
        InputError: PyAV is not installed; it is no video, is cut off, has damage that the decoder sees, or too many
            pixels.

    """
    av = _library(name)
    with _translated(av, name), _opened(av, file) as container:
        if not container.streams.video:
            raise InputError(f"{name} holds no video: remove it")
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec is None:
            raise InputError(f"{name} is a video of a kind that this PyAV cannot decode: convert it")
        if codec.width * codec.height > MOST_PIXELS:
            raise InputError(
                f"{name} has {codec.width} x {codec.height} pixels, more than the {MOST_PIXELS} allowed: make it "
                "smaller"
            )
        codec.options = {"err_detect": "crccheck+bitstream+buffer+careful+explode"}
        yield from _timed(container, stream, name)


def _opened(av: Any, file: IO[bytes]) -> Any:
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
    return av.open(file, options=options, metadata_errors="ignore")


@contextmanager
def _translated(av: Any, name: str) -> Iterator[None]:
    """Raise what PyAV raises as InputError; errors of the storage that a file lies in stay as they are."""
    try:
        yield
    except FreqganError:
        raise
    except Exception as error:  # besides its own errors those of numbers and texts that make no sense
        if isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError):
            raise
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{name} is no video, or is damaged or cut off ({why}): replace or remove it") from error


def _timed(container: Any, stream: Any, name: str) -> Iterator[TimedFrame]:
    """Yield the frames with their times; one lasts until the next, and the last as long as the one before."""
    usual = _usual_duration(stream)
    before: TimedFrame | None = None
    first: Fraction | None = None
    for frame in _decoded(container, stream, name):
        start = None if frame.pts is None else frame.pts * frame.time_base
        first = start if first is None else first
        since = Fraction(0) if start is None or first is None else start - first
        if before is not None:
            since = since if since > before.start else before.start + usual
            yield TimedFrame(before.pixels, before.start, since)
        before = TimedFrame(_pixels(frame), since, since + usual)
    if before is None:
        raise InputError(f"{name} holds no frames: replace or remove it")
    yield before


def _usual_duration(stream: Any) -> Fraction:
    """Return how long a frame is shown, seconds, by the average of the stream; where it tells none, 1/25."""
    return 1 / Fraction(stream.average_rate) if stream.average_rate else Fraction(1, 25)


def _decoded(container: Any, stream: Any, name: str) -> Iterator[Any]:
    """Yield the decoded frames; InputError for a damaged one, or where the file ends before the time that it tells."""
    end = Fraction(0)
    for packet in container.demux():
        if packet.pts is not None:
            begin = stream.start_time if stream.start_time is not None and packet.stream is stream else 0
            end = max(end, (packet.pts - begin + (packet.duration or 0)) * packet.time_base)
        if packet.stream is not stream:
            continue
        for frame in packet.decode():
            if frame.is_corrupt:
                raise InputError(f"{name} is damaged {float(end):.2f} s from its start: replace it")
            yield frame
    told = Fraction(container.duration or 0, 10**6)
    if told - end > max(_LATE_S, _LATE_FRAMES * _usual_duration(stream)):
        raise InputError(f"{name} is cut off: it ends at {float(end):.2f} of {float(told):.2f} s; replace it")


def _pixels(frame: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # how phones say which side is up
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def _rate(file: IO[bytes], name: str) -> float | None:
    """Return the frames a second that a video is said to have; None where it says nothing."""
    av = _library(name)
    with _translated(av, name), _opened(av, file) as container:
        rates = [stream.average_rate for stream in container.streams.video if stream.codec_context is not None]
        return float(rates[0]) if rates and rates[0] else None


def _convert(sources: Sequence[Source], options: PieceOptions) -> Conversion:
    def pieces(source: Source, tally: Tally) -> Iterator[Piece]:
        with source.folder.open(source.name) as file:
            fps = options.fps or _rate(file, source.title)
            file.seek(0)
            yield from scene_clips(read_video(file, source.title), options, tally, source.title, fps)

    return Conversion(pieces)


VIDEOS = SourceFormat("a video", EXTENSIONS, _convert, needs_frames=True)


def encode_mp4(frames: NDArray[np.uint8], fps: float, quality: int = _QUALITY) -> bytes:
    """Return an mp4 of frames (T, H, W, 1 or 3) at ``fps``, in VP9; the same frames give the same bytes.

    Colours are stored at half the size (4:2:0), so that every player shows it. An odd last row or column is doubled.

    Raises:
        InputError: PyAV is not installed, it has no encoder of VP9, frames of other channels, or no rate.

    """
    if frames.ndim != 4 or frames.shape[3] not in (1, 3) or not frames.size:
        raise InputError(f"frames of the shape {frames.shape}: videos have 1 or 3 channels, so choose 1 or 3 of them")
    if not 0 < fps <= 1000:
        raise InputError(f"{fps} frames a second: give a number above 0, up to 1000")
    av = _library("mp4")
    rate = Fraction(fps).limit_denominator(1001)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        try:
            stream = container.add_stream(ENCODER, rate=rate)
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(
                f"this PyAV has no encoder {ENCODER}: install the wheel of PyAV, or write WebP, GIF or APNG"
            ) from error
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1  # whose number would change the bytes
        stream.options = {"crf": str(quality), "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "0"}
        for pixels in frames:
            colour = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
