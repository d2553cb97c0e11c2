"""Frames into clips: windows, strides, rates, cuts and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cluster.formats.clips import Clock, SceneCuts, TimedFrame, array_clips, resized, scene_clips
from cluster.formats.source_format import Piece, PieceOptions, Tally
from freqgan.errors import InputError
from tests.support.clips import Frames, moving_frames


def timed(frames: Frames, fps: int = 10) -> Iterator[TimedFrame]:
    for number, frame in enumerate(frames):
        yield TimedFrame(frame, Fraction(number, fps), Fraction(number + 1, fps))


def pixels_of(clips: list[Piece]) -> list[list[int]]:
    """The first value of every frame of every clip."""
    return [[int(frame.flat[0]) for frame in clip.pixels] for clip in clips]


def numbered(count: int) -> Frames:
    """Frames (T, 8, 8, 1) that hold their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 1)).copy()


@pytest.mark.parametrize(
    ("stride", "expected", "left_over"),
    [
        (1, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]], 1),
        (2, [[0, 2, 4], [5, 7, 9]], 2),
        (6, [[0, 6, 12]], 0),
        (7, [], 2),
    ],
)
def test_clips_follow_each_other(stride: int, expected: list[list[int]], left_over: int) -> None:
    tally, options = Tally(), PieceOptions(frames=3, stride=stride, fps=12)
    clips = list(array_clips(numbered(13), options, tally, "x"))
    assert pixels_of(clips) == expected
    assert tally == Tally(clips=len(expected), left_over=left_over)
    assert all(clip.fields == {"fps": 12 / stride} for clip in clips)


def test_a_cut_ends_a_clip() -> None:
    frames = np.concatenate([moving_frames(10), moving_frames(9, scene=1), moving_frames(8, scene=2)])
    tally = Tally()
    clips = list(scene_clips(timed(frames), PieceOptions(frames=4), tally, "x", 10))
    assert tally == Tally(clips=6, cuts=2, left_over=3)
    starts = [0, 4, 10, 14, 19, 23]
    for clip, start in zip(clips, starts, strict=True):
        assert (clip.pixels == frames[start : start + 4]).all()
        assert clip.fields == {"fps": 10}


def test_cuts_are_seen_among_frames_that_are_not_taken() -> None:
    """At a third of the rate each scene moves more than what tells a cut from motion."""
    frames = np.concatenate([moving_frames(10), moving_frames(11, scene=1)])
    tally = Tally()
    clips = list(scene_clips(timed(frames, 30), PieceOptions(frames=3, fps=10), tally, "x", 30))
    assert tally == Tally(clips=2, cuts=1, left_over=1)
    assert (clips[0].pixels == frames[[0, 3, 6]]).all()
    assert (clips[1].pixels == frames[[12, 15, 18]]).all()
    assert [clip.fields for clip in clips] == [{"fps": 10}] * 2


def test_motion_is_no_cut() -> None:
    """A pan over a picture by 2 % of the width a frame, as fast as clips of people and cars move."""
    wide = np.random.default_rng(4).integers(0, 255, (20, 20, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    cuts = SceneCuts()
    assert not any(cuts.is_cut(wide[:200, 4 * number : 4 * number + 200]) for number in range(40))
    assert cuts.is_cut(255 - wide[:200, 160:360])


def test_a_scene_of_fast_motion_is_cut_at_its_start_alone() -> None:
    noise = np.random.default_rng(5).integers(0, 255, (40, 32, 32, 1), dtype=np.uint8)
    still = np.zeros((20, 32, 32, 1), np.uint8)
    cuts = SceneCuts()
    found = [number for number, frame in enumerate([*still, *noise]) if cuts.is_cut(frame)]
    assert found[0] == 20
    assert max(found) < 20 + 10


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_cuts_of_every_type(kind: str, channels: int) -> None:
    cuts, top = SceneCuts(), np.iinfo(kind).max
    dark, light = (np.full((33, 70, channels), value, kind) for value in (0, top // 2))
    assert [cuts.is_cut(frame) for frame in (dark, dark, light, light, dark)] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (10, [1, 1, 1, 1, 1, 1]),
        (5, [1, 0, 1, 0, 1, 0]),
        (20, [2, 2, 2, 2, 2, 2]),
        (4, [1, 0, 1, 0, 0, 1]),
        (1, [1, 0, 0, 0, 0, 0]),
    ],
)
def test_frames_at_a_rate(fps: float, expected: list[int]) -> None:
    clock = Clock(fps)
    assert [clock.ticks(frame) for frame in timed(numbered(6))] == expected


def test_long_frames_are_repeated() -> None:
    clock, frame = Clock(10), numbered(1)[0]
    times = [Fraction(0), Fraction(1), Fraction(11, 10), Fraction(3, 2)]
    assert [clock.ticks(TimedFrame(frame, start, end)) for start, end in pairwise(times)] == [10, 1, 4]


@pytest.mark.parametrize(
    ("shape", "size", "quality", "expected"),
    [
        ((40, 60, 3), 20, None, (20, 30, 3)),
        ((60, 40, 1), 20, None, (30, 20, 1)),
        ((60, 40, 3), 24, 90, (32, 24, 3)),
        ((40, 60, 3), 20, 90, (20, 30, 3)),
        ((10, 12, 3), 20, None, (10, 12, 3)),
        ((40, 60, 5), 20, None, (20, 30, 5)),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_sizes(shape: tuple[int, ...], size: int, quality: int | None, expected: tuple[int, ...], kind: str) -> None:
    frame = np.full(shape, 200, kind)
    small = resized(frame, PieceOptions(frames=2, size=size, quality=quality))
    if quality is not None and kind != "uint8" and shape[0] > shape[1]:
        expected = (36, 24, 3)  # which never becomes a JPEG
    assert small.shape == expected
    assert small.dtype == kind
    assert (small == 200).all()


def test_clips_of_too_many_pixels_are_refused_at_their_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.formats.clips.MOST_PIXELS", 640)
    assert len(list(array_clips(numbered(10), PieceOptions(frames=10), Tally(), "x"))) == 1
    what = "x has frames of 8 x 8 pixels, and 11 of them are more than the 640 that .*give --size"
    with pytest.raises(InputError, match=what):
        list(array_clips(numbered(1), PieceOptions(frames=11), Tally(), "x"))


def test_options_say_what_is_wrong() -> None:
    alone: list[dict[str, Any]] = [{"stride": 2}, {"fps": 8.0}, {"size": 64}, {"quality": 90}]
    for option in alone:
        with pytest.raises(InputError, match=f"--{next(iter(option))} is for clips, .*add --frames"):
            PieceOptions(**option)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"frames": 1}, "--frames 1: give a number from 2"), ({"stride": 0}, "--stride 0"), ({"fps": 0.0}, "--fps 0.0"),
        ({"fps": float("nan")}, "--fps nan"), ({"quality": 101}, "--quality 101"), ({"size": 0}, "--size 0"),
    ]  # fmt: skip
    for option, what in wrong:
        with pytest.raises(InputError, match=what):
            PieceOptions(**{"frames": 8, **option})
