"""Images of a model as files of a folder, one each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cluster.imaging.image_writing import USUAL_FPS, image_files
from cluster.storage.folder import Folder
from freqgan.model.settings import ModelSettings


def write_images(
    folder: Folder,
    names: Sequence[str],
    images: Tensor,
    settings: ModelSettings,
    kind: str = "",
    fps: float = USUAL_FPS,
) -> None:
    """Write ``images`` (B, C, N, N) in [-1, 1] under ``names``, to which the extension of their format is added.

    ``kind`` and ``fps`` are as for :func:`~cluster.imaging.image_writing.image_files`.
    """
    for name, (extension, data) in zip(names, image_files(images, settings, kind, fps), strict=True):
        folder.write(f"{name}.{extension}", data)
