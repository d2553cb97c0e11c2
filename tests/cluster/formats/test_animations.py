"""GIF, APNG and WebP that Pillow has written come back frame by frame, and damaged ones are refused."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from cluster.formats.animations import AnimationKind, encode_animation, is_animated, read_animation, usual_rate
from freqgan.errors import InputError
from tests.support.clips import Frames, moving_frames
from tests.support.shards import image_bytes

KINDS: tuple[AnimationKind, ...] = get_args(AnimationKind)


def saved(images: list[Image.Image], form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    images[0].save(buffer, form, save_all=True, append_images=images[1:], **options)
    return buffer.getvalue()


def read(data: bytes) -> tuple[Frames, list[Fraction]]:
    frames = list(read_animation(data, "x"))
    assert [frame.start for frame in frames[1:]] == [frame.end for frame in frames[:-1]]
    pixels: Any = np.stack([frame.pixels for frame in frames])
    return pixels, [frame.end - frame.start for frame in frames]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(kind: AnimationKind, channels: int) -> None:
    frames = moving_frames(9)[..., :channels]
    data = encode_animation(frames, 12.5, kind)
    assert data == encode_animation(frames.copy(), 12.5, kind)
    pixels, durations = read(data)
    assert pixels.shape == (9, 16, 24, 3)
    assert set(durations) == {Fraction(8, 100)}
    difference = np.abs(pixels.astype(int) - frames)
    assert difference.max() == 0 if kind != "gif" or channels == 1 else difference.mean() < 3


def test_rates_are_kept_on_average() -> None:
    for kind, fps, total in (("gif", 24.0, 0.5), ("webp", 24.0, 0.5), ("apng", 30000 / 1001, 0.4004)):
        _, durations = read(encode_animation(moving_frames(12), fps, kind))  # type: ignore[arg-type]
        assert float(sum(durations)) == pytest.approx(total, abs=0.006)


def test_frames_that_cannot_be_written() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 4, 4, 5\): animations have 1 or 3 channels"):
        encode_animation(np.zeros((2, 4, 4, 5), np.uint8), 8, "gif")
    for fps in (0, 101, float("nan")):
        with pytest.raises(InputError, match="frames a second: a gif has up to 100"):
            encode_animation(moving_frames(2), fps, "gif")


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_frames_are_composited_on_those_before(form: str) -> None:
    """The second frame has a transparent hole; where it is laid over the first, that one shows through."""
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    red.putpixel((7, 0), (0, 0, 0, 0))  # without which Pillow writes a WebP without alpha
    patch = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    patch.paste((0, 0, 255, 255), (0, 0, 4, 4))
    ways: dict[str, dict[str, Any]] = {
        "GIF": {"disposal": 1, "optimize": False}, "PNG": {"blend": 1}, "WEBP": {"lossless": True},
    }  # fmt: skip
    over = ways[form]
    pixels, _ = read(saved([red, patch], form, duration=[100, 100], **over))
    assert pixels[0, 1:].reshape(-1, 3).tolist() == [[255, 0, 0]] * 56
    assert pixels[0, 0, 7].tolist() == [255, 255, 255]
    assert pixels[1, 1, 1].tolist() == [0, 0, 255]
    assert pixels[1, 6, 6].tolist() == ([255, 255, 255] if form == "WEBP" else [255, 0, 0])


def test_times_of_zero_are_those_that_browsers_show() -> None:
    images = [Image.fromarray(frame) for frame in moving_frames(3)]
    assert read(saved(images, "GIF", duration=0))[1] == [Fraction(1, 10)] * 3
    assert read(saved(images, "WEBP", duration=[200, 50, 50]))[1] == [Fraction(1, 5), Fraction(1, 20), Fraction(1, 20)]


def test_the_default_image_of_an_apng_is_no_frame() -> None:
    images = [Image.fromarray(frame) for frame in moving_frames(4)]
    pixels, durations = read(saved(images, "PNG", default_image=True, duration=40))
    assert (pixels == moving_frames(4)[1:]).all()
    assert durations == [Fraction(1, 25)] * 3


def test_the_rate_of_an_animation() -> None:
    tenth, fifth = Fraction(1, 10), Fraction(1, 5)
    assert usual_rate([tenth] * 4) == usual_rate([tenth, tenth, fifth]) == 10
    assert usual_rate([fifth]) == 5
    assert usual_rate([tenth, fifth, tenth]) is None
    assert usual_rate([]) is None


def test_what_is_animated() -> None:
    frames = moving_frames(3)
    for kind in ("apng", "webp"):
        assert is_animated(io.BytesIO(encode_animation(frames, 8, kind)))
    for form in ("PNG", "WEBP", "JPEG"):
        assert not is_animated(io.BytesIO(image_bytes(1, form)))
    for data in (b"", b"RIFF\0\0\0\0WEBPVP8X", image_bytes(1, "PNG")[:30]):
        assert not is_animated(io.BytesIO(data))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused(kind: AnimationKind) -> None:
    whole = encode_animation(moving_frames(6, 32, 32), 8, kind)
    for data in (whole[: len(whole) // 2], whole[:20], whole[: len(whole) * 9 // 10]):
        with pytest.raises(InputError, match=r"^x is (damaged or cut off|no GIF)"):
            list(read_animation(data, "x"))
    with pytest.raises(InputError, match=r"^x is no GIF, PNG or WebP \(it begins with b'hello'\)"):
        list(read_animation(b"hello", "x"))


def test_an_apng_with_a_broken_header_is_no_still_image() -> None:
    whole = encode_animation(moving_frames(6), 8, "apng")
    with pytest.raises(InputError, match=r"x is damaged or cut off .*Invalid APNG"):
        list(read_animation(whole.replace(b"acTL\0\0\0\6", b"acTL\0\0\0\0"), "x"))


def test_large_animations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.formats.animations.MOST_PIXELS", 100)
    with pytest.raises(InputError, match="x has 24 x 16 pixels, more than the 100 allowed"):
        list(read_animation(encode_animation(moving_frames(2), 8, "gif"), "x"))
