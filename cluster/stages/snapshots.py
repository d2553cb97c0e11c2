"""Snapshots of single stages on the disk of their machine, for the next process of the same stage.

They are not checkpoints: nothing waits for the disk, and a machine that is lost takes its snapshots with it.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cluster.storage.folder import open_folder
from freqgan.errors import RunError

SCALARS = "scalars"


class SnapshotLostError(RunError):
    """A snapshot is not where it was written."""


def snapshot_folder(run: str) -> Path:
    """Return the folder of all stages of ``run`` on this machine, readable by this user alone."""
    name = hashlib.sha256(open_folder(run).url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"freqgan-{getpass.getuser()}" / name


def snapshot_path(run: str, stage: str, step: int) -> Path:
    """Return the path of the state of ``stage`` after ``step`` steps."""
    return snapshot_folder(run) / f"{stage}-{step:09d}.safetensors"


def write_snapshot(
    run: str, stage: str, step: int, tensors: dict[str, torch.Tensor], scalars: dict[str, int], kept: int
) -> Path:
    """Write the state of ``stage`` after ``step`` steps; all but the ``kept`` written last are deleted.

    ``tensors`` (...) may have any shape.
    """
    path = snapshot_path(run, stage, step)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, unfinished, metadata={SCALARS: json.dumps(scalars)})
    os.replace(unfinished, path)
    written = sorted(path.parent.glob(f"{stage}-*.safetensors"), key=lambda found: found.stat().st_mtime_ns)
    for old in written[:-kept]:
        old.unlink(missing_ok=True)
    return path


def read_snapshot(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Return tensors (...) and scalars that :func:`write_snapshot` wrote; SnapshotLostError where it is gone."""
    try:
        with safe_open(path, "pt") as file:
            scalars = {name: int(value) for name, value in json.loads(file.metadata()[SCALARS]).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, scalars  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SnapshotLostError(f"the snapshot {path} cannot be read: {error}") from error


def delete_snapshots(run: str) -> None:
    """Delete the snapshots of ``run`` on this machine."""
    shutil.rmtree(snapshot_folder(run), ignore_errors=True)
