"""Images of a model as files of a folder, one each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cluster.imaging.image_writing import image_files
from cluster.storage.folder import Folder
from freqgan.model.settings import ModelSettings


def write_images(folder: Folder, names: Sequence[str], images: Tensor, settings: ModelSettings) -> None:
    """Write ``images`` (B, C, N, N) in [-1, 1] under ``names``, to which the extension of their format is added."""
    for name, (extension, data) in zip(names, image_files(images, settings), strict=True):
        folder.write(f"{name}.{extension}", data)
