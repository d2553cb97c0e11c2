"""Images as the bodies of answers: one file, a zip of some, or JSON with files in base64."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.imaging.image_writing import ImageFile, formats_of, image_files
from cluster.imaging.pictures import encode_png, to_image
from cluster.imaging.shown_images import shown_images
from cluster.serving.answers import ARRAY, JSON, PNG, TENSORS, WEBP, ZIP, Answer
from freqgan.bands import Band
from freqgan.model.settings import ModelSettings

Format = Literal["png", "webp", "npy", "preview", "zip", "json", "layers"]
MEDIA_TYPES = {"png": PNG, "webp": WEBP, "npy": ARRAY}
"""The media types of files by their extensions."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a zip: the same images give the same bytes."""


def file_kinds(settings: ModelSettings) -> tuple[str, ...]:
    """Return the extensions of files that the service makes of an image of the model; the first is the usual one."""
    return tuple(kind for kind in formats_of(settings) if kind in MEDIA_TYPES)


def preview_files(images: Tensor, settings: ModelSettings) -> list[ImageFile]:
    """Return a picture of 8 bits of what people see of each of ``images`` (B, T C, H, W): a PNG, of clips a WebP."""
    if settings.frames > 1:
        return image_files(images, settings, "webp")
    return [ImageFile("png", encode_png(to_image(pixels))) for pixels in shown_images(images, settings)]


def pack_files(files: Sequence[ImageFile], form: Format, first: int, facts: Mapping[str, Any]) -> Answer:
    """Return ``files`` in one body.

    Args:
        files: of which there is one but for zip and json.
        form: of the body; layers are no files.
        first: number of the first image, in names.
        facts: are said beside the images, in JSON.

    """
    names = [f"{first + number:05d}.{file.extension}" for number, file in enumerate(files)]
    if form == "zip":
        return Answer(_zip(dict(zip(names, [file.data for file in files], strict=True))), ZIP, images=len(files))
    if form == "json":
        images = [
            {"name": n, f.extension: base64.b64encode(f.data).decode()} for n, f in zip(names, files, strict=True)
        ]
        return Answer(json.dumps({**facts, "images": images}).encode(), JSON, images=len(files))
    return Answer(files[0].data, MEDIA_TYPES[files[0].extension], images=1)


def pack_layers(layers: Mapping[Band, Tensor]) -> Answer:
    """Return what each band adds to one image, (1, C, N, N) in float, as (C, N, N) of 16 bits."""
    return Answer(save_tensors({str(band): x[0].half().contiguous() for band, x in layers.items()}), TENSORS, images=1)


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
    return buffer.getvalue()
