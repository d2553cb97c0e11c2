"""``freqgan generate --interpolate A B``: the way from one image to another, as pictures, a strip and an animation."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from cluster.imaging.pictures import encode_png, to_image
from cluster.imaging.shown_images import shown_images
from freqgan.generation.mixing import interpolated, shares_of_frames
from freqgan.generation.synthesiser import BLOCK, Draws, Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.model.settings import ModelSettings
from launch.drawing.grids import tile
from launch.settings.image_request import ImageRequest

STRIP, GIF, WEBP = "strip.png", "interpolation.gif", "interpolation.webp"
FRAME_MS = 80
STRIP_SIDE = 64
SCALE_TO = 128


def interpolate(request: ImageRequest, seeds: tuple[int, int], frames: int, note: Callable[[str], None]) -> str:
    """Write the frames between the first images of two seeds, 00000.png .., a strip and two animations; return a line.

    Raises:
        InputError: as of :func:`launch.commands.generate.generate`; options that mean nothing here.

    """
    request.refuse("--interpolate", "count", "seed", "part", "save_vectors")
    opened = request.open(note)
    checkpoint, model, folder, _ = opened
    parts = request.targets.parts(checkpoint, 1) if request.targets.given else None
    ends = [_end(model, seed, parts, request.truncation) for seed in seeds]
    way = interpolated(model.chain, ends[0], ends[1], shares_of_frames(frames))
    images = torch.cat([model.draw(way.rows(slice(i, i + BLOCK))).images for i in range(0, frames, BLOCK)])
    request.write(opened, [f"{number:05d}" for number in range(len(images))], images)
    scale = max(1, STRIP_SIDE // max(images.shape[-2:]))
    folder.write(STRIP, encode_png(tile(shown_images(images, model.settings), frames, scale=scale)))
    for name, kind in ((GIF, "GIF"), (WEBP, "WEBP")):
        folder.write(name, animation(images, model.settings, kind))
    return f"{frames} frames from seed {seeds[0]} to seed {seeds[1]}, {STRIP}, {GIF} and {WEBP} in {folder.url}"


def _end(model: Synthesiser, seed: int, parts: TargetParts | None, truncation: float) -> Draws:
    asked = None if parts is None else targets_for(model, seed, 1, parts)
    return model.draws(seed, 1, asked).scaled(truncation)


def animation(images: Tensor, settings: ModelSettings, kind: str) -> bytes:
    """Return images (B, C, N, N) in [-1, 1] one after the other, there and back, as a GIF or WEBP that repeats.

    They are those of a model of ``settings``.
    """
    pixels = shown_images(images, settings)
    scale = max(1, SCALE_TO // max(images.shape[-2:]))
    there = [to_image(one, scale) for one in pixels]
    pictures = [*there, *there[-2:0:-1]]
    if kind == "GIF":  # one palette of each picture's own, without the speckles of error diffusion
        pictures = [one.quantize(256, dither=Image.Dither.NONE) for one in pictures]
    buffer = io.BytesIO()
    more = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0, **more)
    return buffer.getvalue()
