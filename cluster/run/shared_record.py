"""What the components of a run at a free pace have in common, as it is stored; nothing of torch is imported."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cluster.run.layout import SHARED
from cluster.run.model_record import RESTORE, StoredRecord, read_record
from cluster.storage.folder import Folder
from freqgan.errors import InputError

FORMAT = 1
REMEDY = f"{RESTORE}, or give another run="


class SharedFile(StoredRecord):
    """A file beside the record, as :class:`FileRecord`."""

    name: str
    size_bytes: int
    sha256: str


class Format(StoredRecord):
    """What says which version of the program can read a record, and what lies beside it."""

    format: int


class SharedRecord(Format):
    """What all components of a run have in common.

    Attributes:
        settings: of the whole run, by who began it.
        data: the fingerprint of the images.
        statistics: the file of the statistics of the bands.
        classes: the names of labels 0, 1 ..., as far as they are known.
        meaning: what stored numbers mean, as far as it is known; ``values`` in the file.

    """

    settings: dict[str, Any]
    data: str
    statistics: SharedFile
    classes: tuple[str, ...] = ()
    meaning: dict[str, Any] = Field(default_factory=dict, alias="values")


def read_shared_record(folder: Folder) -> SharedRecord | None:
    """Return the record in ``folder``, the folder of the components of a run; None where no such run has begun there.

    Raises:
        InputError: it is damaged, or of another version of the program.

    """
    stored = folder.read_tagged(SHARED)
    if stored is None:
        return None
    name = f"{folder.url}/{SHARED}"
    if (number := read_record(Format, stored[0], name, REMEDY).format) != FORMAT:  # whatever else is in it
        raise InputError(f"{name} has format {number}, this version reads {FORMAT}; use the version that began it")
    return read_record(SharedRecord, stored[0], name, REMEDY)
