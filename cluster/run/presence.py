"""Whether what a command names is there at all: asked first, before anything that takes a while to load."""

from __future__ import annotations

from cluster.data.shards import find_shards
from cluster.storage.folder import open_folder
from freqgan.errors import InputError


def check_run(run: str) -> None:
    """Raise InputError when there is no folder ``run``, a path or s3:// URL."""
    if not open_folder(run).is_there():
        raise InputError(f"{run} is not there: name the run folder of a training that has saved a checkpoint")


def check_data(data: str) -> None:
    """Raise InputError when ``data`` names no shards. A bucket is not asked: its reader lists it anyway."""
    if not data:
        raise InputError("data: no shards are named; set data=<folder, glob or s3:// URL of WebDataset shards>")
    if not data.startswith("s3://"):
        find_shards(data)
