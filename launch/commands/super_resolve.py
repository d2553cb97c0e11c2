"""``freqgan super-resolve``: small images enlarged by the chain of a run, or large ones reduced and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cluster.imaging.low_images import (
    LowImage,
    check_halvings,
    check_level,
    detail_draws,
    read_low_image,
    read_slow_clip,
)
from cluster.run.labels import class_of
from cluster.run.trained_model import open_model
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.errors import counted
from freqgan.generation.editing import low_band, slow_down, super_resolve
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.metrics.catalogue import FEWEST
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.model.clips import apart, averaged_frames
from freqgan.pixels import from_pixels, to_pixels
from freqgan.sizes import Size, width_by_height
from launch.console.text import images_text
from launch.drawing.image_files import write_images
from launch.drawing.side_by_side import picture_names, write_side_by_side


def super_resolve_command(
    run: str,
    images: Sequence[str],
    *,
    level: int,
    out: str,
    seed: int,
    category: str | None,
    note: Callable[[str], None],
    generation: GenerationOptions = AS_TRAINED,
    in_time: bool = False,
) -> list[str]:
    """Enlarge image files with the chain of ``run``; return lines that say what was written and how good it is.

    With ``in_time`` clips get more frames instead, 2^level for one: see :func:`more_frames`.

    An image as small as the low band of ``level`` is enlarged to the model's size. An image of the model's size or
    larger is reduced to that low band first, and the result is compared with it, and with bicubic enlargement.
    ``generation`` is how flow experts generate.

    Raises:
        InputError: files, sizes, level, class or options that cannot be used.

    """
    checkpoint, synthesiser = open_model(run, note=note, generation=generation.apply)
    label = class_of(category, checkpoint)
    settings = synthesiser.settings
    if not in_time:
        check_level(settings, level)
    folder = open_folder(out)
    folder.check_writable()
    if in_time:
        return more_frames(synthesiser, images, level, folder, seed, label)
    sources = [_read(url, synthesiser, level) for url in images]
    enlarged = torch.cat(
        [
            super_resolve(
                synthesiser,
                torch.cat([source.low for source in block]),
                level,
                detail_draws(synthesiser, seed, len(block), label),
            )
            for block in (sources[i : i + BLOCK] for i in range(0, len(sources), BLOCK))
        ]
    )
    bicubic = torch.cat([_bicubic(source.low, settings.size) for source in sources])
    names = picture_names(images)
    write_images(folder, names, enlarged, settings)
    deviation = (low_band(synthesiser, enlarged, level) - torch.cat([source.low for source in sources])).abs().max()
    lines = [
        f"{images_text(len(sources))} of {width_by_height(settings.size)} pixels in {folder.url}",
        f"low band of the output against the input: largest difference {float(deviation):.2g} of a range of 2",
    ]
    lines += _comparison(sources, enlarged, bicubic)
    write_side_by_side(folder, _columns(sources, enlarged, bicubic, settings.size), settings)
    return lines


def more_frames(
    synthesiser: Synthesiser, clips: Sequence[str], halvings: int, folder: Folder, seed: int, label: int | None
) -> list[str]:
    """Write clips of 2^halvings times as many frames, whose averages are those of ``clips``; return lines of text.

    Clips of as many frames as the model's are averaged first, and the result is compared with them, and with frames
    that are repeated.

    Raises:
        InputError: files that cannot be used, or a model that makes no clips.

    """
    settings = synthesiser.settings
    check_halvings(settings, halvings)
    sources = []
    for url in clips:
        parent, name = split_object(url)
        sources.append(read_slow_clip(parent.read(name), url, synthesiser, halvings))
    slow = torch.cat([source.low for source in sources])
    made = torch.cat(
        [
            slow_down(synthesiser, block, detail_draws(synthesiser, seed, len(block), label))
            for block in torch.split(slow, BLOCK)
        ]
    )
    write_images(folder, picture_names(clips), made, settings)
    deviation = float((averaged_frames(made, settings.frames, 2**halvings) - slow).abs().max())
    repeated = apart(slow, settings.frames >> halvings).repeat_interleave(2**halvings, dim=1).flatten(1, 2)
    lines = [
        f"{counted(len(sources), 'clip')} of {settings.frames} frames in {folder.url}",
        f"averages of {2**halvings} frames of the output against the input: largest difference {deviation:.2g} of a "
        "range of 2",
    ]
    truths = [source.truth for source in sources if source.truth is not None]
    if len(truths) == len(sources):
        truth = torch.cat(truths)
        ours, theirs = _psnr(made, truth), _psnr(repeated, truth)
        lines.append(f"PSNR against the originals: {ours:.2f} dB, frames repeated {theirs:.2f} dB")
    return lines


def _read(url: str, synthesiser: Synthesiser, level: int) -> LowImage:
    folder, name = split_object(url)
    return read_low_image(folder.read(name), url, synthesiser, level)


def _bicubic(low: Tensor, size: Size) -> Tensor:
    """Return bicubic enlargements (B, C, h, w), ``size``, by Pillow, as people make them: from 8 bits."""
    planes = to_pixels(low).flatten(0, 1).numpy()
    images = [Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC) for plane in planes]
    rows = np.stack([np.asarray(image) for image in images]).reshape(*low.shape[:2], *size)
    return from_pixels(torch.from_numpy(rows))


def _comparison(sources: Sequence[LowImage], enlarged: Tensor, bicubic: Tensor) -> list[str]:
    with_truth = [i for i, source in enumerate(sources) if source.truth is not None]
    if not with_truth:
        return []
    truth = torch.cat([source.truth for source in sources if source.truth is not None])
    ours, theirs = enlarged[with_truth], bicubic[with_truth]
    small = width_by_height(sources[0].low.shape[-2:])
    lines = [f"larger than {small}, so reduced to that first and then compared: {images_text(len(with_truth))}"]
    lines += [f"PSNR against the originals: {_psnr(ours, truth):.2f} dB, bicubic {_psnr(theirs, truth):.2f} dB"]
    if len(with_truth) >= FEWEST:
        real = to_pixels(truth)
        scores = [sliced_wasserstein(real, to_pixels(x))[""] for x in (ours, theirs)]
        lines.append(f"sliced Wasserstein distance to them: {scores[0]:.1f}, bicubic {scores[1]:.1f} (low is good)")
    else:
        lines.append(f"(give at least {FEWEST} originals to have sliced Wasserstein distances as well)")
    return lines


def _psnr(images: Tensor, truth: Tensor) -> float:
    """Return the mean over the images of 10 log10(255^2 / mean squared error) on 8-bit pixels, dB."""
    errors = (to_pixels(images).float() - to_pixels(truth).float()).square().flatten(1).mean(dim=1)
    return float((10 * torch.log10(255.0**2 / errors.clamp(min=1e-9))).mean())


def _columns(sources: Sequence[LowImage], enlarged: Tensor, bicubic: Tensor, size: Size) -> dict[str, Tensor]:
    """Return columns: input in blocks of pixels, bicubic, ours and, where all are known, the originals."""
    lows = torch.cat([source.low for source in sources])
    blocks = functional.interpolate(lows, size=size, mode="nearest")
    columns = {"input": blocks, "bicubic": bicubic, "super-resolved": enlarged}
    truths = [source.truth for source in sources if source.truth is not None]
    return columns | {"original": torch.cat(truths)} if len(truths) == len(sources) else columns
