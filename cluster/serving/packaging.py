"""Images as the bodies of answers: one PNG, a zip of some, or JSON with PNGs in base64."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.imaging.pictures import encode_png, to_image
from cluster.serving.answers import Answer
from freqgan.bands import Band
from freqgan.bit_depth import BitDepth
from freqgan.pixels import to_pixels

Format = Literal["png", "zip", "json", "layers"]
PNG, ZIP, JSON = "image/png", "application/zip", "application/json"
TENSORS = "application/octet-stream"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a zip: the same images give the same bytes."""


def png_files(images: Tensor, depth: BitDepth) -> list[bytes]:
    """Return the PNG of every one of ``images`` (B, C, N, N) in [-1, 1]."""
    return [encode_png(to_image(pixels)) for pixels in to_pixels(images.cpu(), depth).numpy()]


def pack_images(files: Sequence[bytes], form: Format, first: int, facts: Mapping[str, Any]) -> Answer:
    """Return PNG ``files`` in one body.

    Args:
        files: of which there is one for the format png.
        form: of the body; layers are no files.
        first: number of the first image, in names.
        facts: are said beside the images, in JSON.

    """
    names = [f"{first + number:05d}.png" for number in range(len(files))]
    if form == "png":
        return Answer(files[0], PNG, images=1)
    if form == "zip":
        return Answer(_zip(dict(zip(names, files, strict=True))), ZIP, images=len(files))
    images = [{"name": n, "png": base64.b64encode(f).decode()} for n, f in zip(names, files, strict=True)]
    return Answer(json.dumps({**facts, "images": images}).encode(), JSON, images=len(files))


def pack_layers(layers: Mapping[Band, Tensor]) -> Answer:
    """Return what each band adds to one image, (1, C, N, N) in float, as (C, N, N) of 16 bits."""
    return Answer(save_tensors({str(band): x[0].half().contiguous() for band, x in layers.items()}), TENSORS, images=1)


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
    return buffer.getvalue()
