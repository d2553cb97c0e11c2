"""The Ray actor that writes checkpoints; in a module of its own, which imports no torch and so starts in no time."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from cluster.files import FileRecord, write_files


class UploadActor:
    """Writes checkpoints beside the training. It may die at any time: Ray starts it again and repeats its calls.

    They do no harm twice: names and bytes are the same, and nothing counts before the manifest is there.
    """

    def write(self, folder_url: str, files: dict[str, NDArray[np.uint8]]) -> list[FileRecord]:
        """See :func:`cluster.files.write_files`."""
        return write_files(folder_url, {name: data.tobytes() for name, data in files.items()})

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()
