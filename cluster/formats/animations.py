"""GIF, APNG and animated WebP, by Pillow: read into frames, and written from them.

Sources: "Graphics Interchange Format, Version 89a" (CompuServe, 1990); "Portable Network Graphics (PNG) Specification
(Third Edition)", W3C, 11.3.6; RFC 9649, sections 2.7.1.1 to 2.7.1.2.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cluster.formats.arrays import MOST_PIXELS
from cluster.formats.clips import TimedFrame, scene_clips
from cluster.formats.source_format import Conversion, Piece, PieceOptions, Source, SourceFormat, Tally, Values
from freqgan.errors import InputError

AnimationKind = Literal["gif", "apng", "webp"]

_WHITE = (255, 255, 255, 255)
_SHORTEST_MS = 10
_USUAL_MS = 100
"""Frames of up to 10 ms are shown for 100 ms by browsers, which take so short a time for none."""
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_ANIMATED = 0x02
"""The bit of an animation in the flags of a VP8X chunk."""


def is_animated(file: IO[bytes]) -> bool:
    """Return whether a PNG or WebP, of which at most the headers of chunks are read, has more than one frame."""
    head = file.read(21)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return len(head) == 21 and bool(head[20] & _WEBP_ANIMATED)
    if head[:8] != _PNG:
        return False
    position = len(_PNG)
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8 or chunk[4:] in (b"IDAT", b"IEND"):
            return False
        if chunk[4:] == b"acTL":
            return True
        position += 12 + int.from_bytes(chunk[:4], "big")


# -- reading ---------------------------------------------------------------------------------------


def _opened(data: bytes, name: str) -> Image.Image:
    """Return an animation of which the header was read; ``Image.open`` would bound its pixels once more."""
    if data[:6] in (b"GIF87a", b"GIF89a"):
        image: Image.Image = GifImageFile(io.BytesIO(data))
    elif data[:8] == _PNG:
        image = PngImageFile(io.BytesIO(data))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        image = WebPImageFile(io.BytesIO(data))
    else:
        raise InputError(f"{name} is no GIF, PNG or WebP (it begins with {data[:8]!r}): convert or remove it")
    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels, more than the {MOST_PIXELS} allowed: make it smaller"
        )
    return image


def read_animation(data: bytes, name: str) -> Iterator[TimedFrame]:
    """Yield the frames (H, W, 3) of an animation, uint8, each as it is shown, transparency laid on white.

    Raises:
        InputError: it is no GIF, PNG or WebP, is damaged, or has too many pixels.

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of a broken animation, and gives its first frame alone
            image = _opened(data, name)
        first = 1 if getattr(image, "default_image", False) else 0  # of an APNG, for viewers that show no animation
        time = Fraction(0)
        for number in range(first, getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            end = time + Fraction(round(_duration_ms(image) * 1000), 10**6)
            yield TimedFrame(_on_white(image), time, end)
            time = end
    except InputError:
        raise
    except Exception as error:  # what Pillow raises for damage is of many kinds
        raise InputError(f"{name} is damaged or cut off ({error}): replace or remove it") from error


def _duration_ms(image: Image.Image) -> float:
    duration = float(image.info.get("duration") or 0)
    return duration if duration > _SHORTEST_MS or (image.format == "PNG" and duration > 0) else _USUAL_MS


def _on_white(image: Image.Image) -> Values:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer)
    return np.asarray(image.convert("RGB"))


def usual_rate(durations: Sequence[Fraction]) -> float | None:
    """Return frames a second where all durations, seconds, but for the last are equal; None where they are not."""
    told = list(durations[:-1] or durations)
    if not told or any(before != after for before, after in pairwise(told)):
        return None
    return float(1 / told[0])


def _convert(sources: Sequence[Source], options: PieceOptions) -> Conversion:
    def pieces(source: Source, tally: Tally) -> Iterator[Piece]:
        data = source.folder.read(source.name)
        fps = options.fps or usual_rate([frame.end - frame.start for frame in read_animation(data, source.title)])
        yield from scene_clips(read_animation(data, source.title), options, tally, source.title, fps)

    return Conversion(pieces)


ANIMATIONS = SourceFormat("an animation", ("gif", "apng"), _convert, needs_frames=True)


# -- writing ---------------------------------------------------------------------------------------


def encode_animation(frames: NDArray[np.uint8], fps: float, kind: AnimationKind) -> bytes:
    """Return an animation that repeats for ever, of frames (T, H, W, 1 or 3) at ``fps``.

    APNG and WebP lose nothing. A GIF has 256 colours, which are chosen for all frames together so that still parts stay
    still, and times in hundredths of a second. The same frames give the same bytes.

    Raises:
        InputError: frames of other channels, or a rate that the format cannot tell.

    """
    if frames.ndim != 4 or frames.shape[3] not in (1, 3) or not frames.size:
        raise InputError(
            f"frames of the shape {frames.shape}: animations have 1 or 3 channels, so choose 1 or 3 of them"
        )
    step_ms = {"gif": 10, "apng": 1, "webp": 1}[kind]
    if not 0 < fps <= 1000 / step_ms:
        raise InputError(f"{fps} frames a second: a {kind} has up to {1000 // step_ms}; give a lower rate")
    images = [Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in frames]
    ends = [round(1000 / step_ms * (number + 1) / fps) * step_ms for number in range(len(images))]
    durations = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    options: dict[str, Any] = {"save_all": True, "duration": durations, "loop": 0}
    if kind == "gif":
        images = _with_one_palette(images)
        options |= {"optimize": False, "disposal": 1}
    elif kind == "webp":
        options |= {"lossless": True, "method": 4}
    buffer = io.BytesIO()
    images[0].save(buffer, {"gif": "GIF", "apng": "PNG", "webp": "WEBP"}[kind], append_images=images[1:], **options)
    return buffer.getvalue()


def _with_one_palette(images: list[Image.Image]) -> list[Image.Image]:
    """Return images in the 256 colours that are best for all of them; not dithered, for that would flicker."""
    if images[0].mode == "L":
        return images
    tall = Image.fromarray(np.concatenate([np.asarray(image) for image in images]))
    palette = tall.quantize(256, Image.Quantize.MEDIANCUT)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
