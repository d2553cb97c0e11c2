"""A checkpoint: the manifest that makes it one, and what it names.

A folder is a checkpoint when it has a manifest; :mod:`cluster.run.checkpoint_writer` writes it last. A file is verified
when it is read, and only once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from safetensors.torch import load as load_safetensors
from torch import Tensor

from cluster.run.layout import (
    MANIFEST,
    STATISTICS,
    checkpoint_path,
)
from cluster.run.settings import RunSettings
from cluster.run.stage_files import read_averages, read_counters, read_tensors
from cluster.storage.checksummed_files import FileRecord, read_verified
from cluster.storage.folder import Folder
from freqgan.errors import FreqganError, RunError
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.stage_names import stage_names
from freqgan.setting_group import AS_STORED

FORMAT = 2
"""The format that is written: a stage has files by purpose, and manifests name files relative to ``checkpoints/``."""
ONE_FILE_FORMAT = 1
"""An older format, which is still read: a stage has one file with everything, named relative to its manifest."""

VALUES = "values"
"""Of the data in a manifest: what stored numbers mean."""

Found = TypeVar("Found")


@dataclass
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        step: how many steps were finished.
        root: the folder of all checkpoints of the run.
        attempt: the name of the process that wrote it.
        manifest: as it is stored.
        notes: what was passed over to find it.

    """

    step: int
    root: Folder
    attempt: str
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Folder:
        """The folder that its manifest is in."""
        return self.root.child(checkpoint_path(self.step, self.attempt))

    @cached_property
    def settings(self) -> RunSettings:
        """The settings it was trained with."""
        return RunSettings.model_validate(self.manifest["settings"], context=AS_STORED)

    @property
    def images(self) -> int:
        """Images seen."""
        return int(self.manifest["images"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of labels 0, 1 ... of the data; () where they are not known, as in older checkpoints."""
        return tuple(map(str, self.manifest["data"].get("classes", ())))

    @property
    def values(self) -> dict[str, Any]:
        """What stored numbers of its images mean, see :mod:`cluster.formats.meaning`; {} where it is not known."""
        values = self.manifest["data"].get(VALUES, {})
        return dict(values) if isinstance(values, dict) else {}

    @cached_property
    def stage_steps(self) -> dict[str, int]:
        """How many steps each stage has finished, by its name; all are equal where stages wait for each other."""
        stored = self.manifest.get("stages")
        if stored is None:
            return dict.fromkeys(stage_names(self.settings), self.step)
        return {str(name): int(step) for name, step in stored.items()}

    @cached_property
    def records(self) -> list[FileRecord]:
        """Every file with size and sha256, named relative to the folder of checkpoints."""
        records = [FileRecord(**record) for record in self.manifest["files"]]
        if self.manifest["format"] != ONE_FILE_FORMAT:
            return records
        return [FileRecord(self._own(r.name), r.size_bytes, r.sha256) for r in records]

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors by stage, verified: weights, averages, optimiser moments, states to go back to.

        Their shapes (...) are those of the networks of the settings.
        """
        return {stage: read_tensors(stage, self.records, self.read) for stage in self.stage_steps}

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """Return the averaged weights of the generators by stage, verified: all that a picture needs.

        Their shapes (...) are those of the generators of the settings.
        """
        return {stage: read_averages(stage, self.records, self.read) for stage in self.stage_steps}

    def counters(self, stage: str) -> bytes:
        """Return the counters of a stage as they are stored, JSON, verified."""
        return read_counters(stage, self.records, self.read)

    def statistics(self) -> BandStatistics:
        """Return the band statistics, verified."""
        return self._statistics

    @cached_property
    def _statistics(self) -> BandStatistics:
        record = next(record for record in self.records if record.name == self.statistics_name)
        return BandStatistics.from_tensors(load_safetensors(self.read(record)))

    @property
    def statistics_name(self) -> str:
        """The name of the file of the band statistics among :attr:`records`."""
        return self.manifest.get("statistics") or self._own(STATISTICS)

    def digest(self) -> str:
        """sha256 over the name, type, shape and bytes of every weight and optimiser state, in the order of names."""
        total = hashlib.sha256()
        for stage, tensors in sorted(self.states().items()):
            total.update(self._digested(stage, tensors))
        return total.hexdigest()

    def averages_digest(self) -> str:
        """sha256 over the averaged weights of the generators: an exported model has that of its run."""
        total = hashlib.sha256()
        for stage, tensors in sorted(self.averages().items()):
            for name, tensor in sorted(tensors.items()):
                total.update(f"{stage} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().numpy().tobytes())
        return total.hexdigest()

    def stage_digests(self) -> dict[str, str]:
        """Return for every stage the sha256 of what :meth:`digest` takes of it."""
        return {name: hashlib.sha256(self._digested(name, x)).hexdigest() for name, x in self.states().items()}

    def _digested(self, stage: str, tensors: Mapping[str, Tensor]) -> bytes:
        parts = [stage.encode() + self.counters(stage)]
        for name, tensor in sorted(tensors.items()):
            parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.numpy().tobytes()]
        return b"".join(parts)

    def verify(self) -> None:
        """DamagedFileError unless every file is there and has the recorded size and sha256."""
        for record in self.records:
            self.read(record)

    def read(self, record: FileRecord) -> bytes:
        """Return the bytes of one of :attr:`records`; DamagedFileError where they are not those that were recorded."""
        return read_verified(self.root, record)

    def _own(self, name: str) -> str:
        return checkpoint_path(self.step, self.attempt, name)


class UnusableError(RunError):
    """A manifest or a listing that says that a checkpoint cannot be used."""


def check_sizes(checkpoint: Checkpoint, sizes: Mapping[str, int]) -> None:
    """Raise UnusableError unless all files of ``checkpoint`` are among ``sizes``, by name, with the recorded size."""
    for record in checkpoint.records:
        size = sizes.get(record.name)
        if size != record.size_bytes:
            there = "is not there" if size is None else f"has {size} bytes"
            raise UnusableError(
                f"{checkpoint.root.url}/{record.name} {there}; the manifest says {record.size_bytes} bytes"
            )


def read_manifest(root: Folder, step: int, attempt: str) -> Checkpoint:
    """Return the checkpoint of a manifest; UnusableError for one that is damaged or not of this program."""
    name = f"{root.url}/{checkpoint_path(step, attempt, MANIFEST)}"
    try:
        manifest = json.loads(root.read(checkpoint_path(step, attempt, MANIFEST)))
        if manifest["format"] not in (FORMAT, ONE_FILE_FORMAT):
            raise UnusableError(
                f"{name} has format {manifest['format']}, this version reads {ONE_FILE_FORMAT} and {FORMAT}"
            )
        checkpoint = Checkpoint(step, root, attempt, manifest)
        _ = checkpoint.settings
        if manifest["step"] != step or settings_sha256(manifest["settings"]) != manifest["settings_sha256"]:
            raise UnusableError(f"{name} does not belong to step {step} of these settings")
        _ = checkpoint.records, checkpoint.images, checkpoint.stage_steps
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FreqganError):
            raise UnusableError(str(error)) from error
        raise UnusableError(f"{name} is no manifest of this program: {type(error).__name__}: {error}") from error
    return checkpoint


def data_record(
    fingerprint: str, images: int, class_names: Sequence[str], values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a manifest says of the data: its fingerprint, and how far it was read.

    Where there are such, the names of classes and what ``values`` mean come with it.
    """
    record: dict[str, Any] = {"fingerprint": fingerprint, "position": images}
    record |= {"classes": list(class_names)} if class_names else {}
    return record | ({VALUES: dict(values)} if values else {})


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Return the sha256 of settings as they are stored: one that a later version adds must not make it differ."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
