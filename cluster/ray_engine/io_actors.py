"""The Ray actors that read and write and do not compute; without torch they start at once and take little memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.data.decoding import Pixels
from cluster.data.quarantine import QuarantinedImage
from cluster.data.reader import BatchReader, Targets
from cluster.storage.checksummed_files import FileRecord, write_files


class IngestActor:
    """Decodes every image once; all band actors read the same batch from the object store."""

    def __init__(self, reader_factory: Callable[[], BatchReader], batch_size: int) -> None:
        self.batch_size = batch_size
        self.ingest = reader_factory()

    def ready(self) -> int:
        """Return a number, as the stages do, once it is built."""
        return 0

    def pid(self) -> int:
        """Return the number of its process."""
        return os.getpid()

    def leave_out(self, images: Sequence[QuarantinedImage]) -> None:
        """Pass over ``images``, as :meth:`BatchReader.leave_out` does; twice does no harm."""
        self.ingest.leave_out(images)

    def batch(self, step: int) -> tuple[Pixels, Targets]:
        """Return pixels (B, N, N, C) and targets of ``step``: what lies in one piece is stored without a copy.

        Raises DamageFoundError where images of it are damaged for good.
        """
        batch = self.ingest.batch(step * self.batch_size, self.batch_size)
        return batch.pixels, batch.targets


class UploadActor:
    """Writes checkpoints beside the training. It may die at any time: another one does its calls again.

    They do no harm twice: names and bytes are the same, and nothing counts before the manifest is there.
    """

    def write(self, root_url: str, files: dict[str, NDArray[np.uint8] | FileRecord]) -> list[FileRecord]:
        """Write files of a checkpoint, arrays of bytes (...), into the folder of checkpoints.

        Those that are given as records are there already.
        """
        data = {name: file if isinstance(file, FileRecord) else file.tobytes() for name, file in files.items()}
        return write_files(root_url, data)

    def pid(self) -> int:
        """Return the number of its process."""
        return os.getpid()
