"""Finished models of one name, and which of them is in use.

``<models>/<name>/versions/<number>/`` holds a checkpoint in the layout of a run, so that every command that takes a run
takes a version; and ``model.json``, written last: a folder without it is no version. ``CURRENT`` names the one in use,
and is moved by a conditional write that carries the epoch of the lease, after all files of the version have been
verified. ``attempts/<number>/`` is where the version of that number is trained.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from cluster.run.checkpoint import FORMAT as CHECKPOINT_FORMAT
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint, open_checkpoint
from cluster.run.layout import (
    CHECKPOINTS,
    CURRENT,
    LATEST,
    MANIFEST,
    STATISTICS,
    VERSION_DIGITS,
    VERSIONS,
    checkpoint_path,
)
from cluster.run.model_record import FORMAT, CurrentRecord, Lineage, Move, VersionRecord, damaged_record, read_record
from cluster.storage.checksummed_files import write_recorded
from cluster.storage.folder import Folder, open_folder
from cluster.storage.lease import Lease
from freqgan.errors import FreqganError, InputError, RunError

RECORD = "model.json"
LEASE = "LEASE"


@dataclass(frozen=True)
class Version:
    """A finished model, the folder that holds it, and its record."""

    number: int
    folder: Folder
    record: VersionRecord

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint of this version; what is read of it is verified then."""
        return find_checkpoint(self.folder.url)

    def verify(self) -> None:
        """InputError unless all of its files are those that were recorded."""
        open_checkpoint(self.folder.url, Checkpoint.verify)


@dataclass(frozen=True)
class Current:
    """What CURRENT says.

    Attributes:
        stack: the versions in use, the last one now; a roll-back takes the last one off.
        epoch: that of the lease of the process that moved it last.
        log: every move.

    """

    stack: tuple[int, ...]
    epoch: int
    log: tuple[Move, ...]

    @property
    def number(self) -> int:
        """The number of the version in use."""
        return self.stack[-1]


class ModelRegistry:
    """The versions of one name; ``url`` is <models>/<name>."""

    def __init__(self, url: str) -> None:
        self.folder = open_folder(url)

    def lease(self, note: Callable[[str], None] = lambda text: None) -> Lease:
        """Return the lease on the name, which whoever trains, promotes or rolls back holds."""
        return Lease(self.folder, LEASE, f"model {self.folder.url}", note=note)

    # -- reading -------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """Return the numbers of the finished versions, in order."""
        names = [name for name in self.folder.child(VERSIONS).subfolders() if name.isdecimal()]
        return sorted(int(name) for name in names if self._version_folder(int(name)).exists(RECORD))

    def version(self, number: int) -> Version:
        """Return a version; InputError where there is none of that number, or its record is damaged."""
        folder = self._version_folder(number)
        if not folder.exists(RECORD):
            there = ", ".join(map(str, self.numbers())) or "none"
            raise InputError(f"{self.folder.url} has no version {number}; there are: {there}")
        name = f"{folder.url}/{RECORD}"
        record = read_record(VersionRecord, folder.read(RECORD), name)
        if record.format != FORMAT or record.number != number:
            reason = f"it says format {record.format}, number {record.number}, not {FORMAT} and {number}"
            raise damaged_record(name, reason)
        return Version(number, folder, record)

    def newest(self) -> Version | None:
        """Return the version of the highest number, in use or not; None where there is none."""
        numbers = self.numbers()
        return self.version(numbers[-1]) if numbers else None

    def current(self) -> Current | None:
        """Return which version is in use; None where none ever was."""
        there = self.folder.read_tagged(CURRENT)
        return None if there is None else self._read_current(there[0])

    def attempt(self, number: int) -> Folder:
        """Return the folder where the version of ``number`` is trained."""
        return self.folder.child("attempts", f"{number:0{VERSION_DIGITS}d}")

    def attempts(self) -> list[int]:
        """Return the numbers of all attempts that left something."""
        return sorted(int(name) for name in self.folder.child("attempts").subfolders() if name.isdecimal())

    # -- writing -------------------------------------------------------------------------------

    def add(self, number: int, checkpoint: Checkpoint, lineage: Lineage) -> Version:
        """Copy ``checkpoint`` to the version of ``number``; the record comes last. Doing it again does no harm."""
        folder = self._version_folder(number)
        target, records = folder.child(CHECKPOINTS), []
        for one in checkpoint.records:
            base = STATISTICS if one.name == checkpoint.statistics_name else one.name.rpartition("/")[2]
            name = checkpoint_path(checkpoint.step, "model", base)
            records.append(write_recorded(target, name, checkpoint.read(one)))
        named = {"format": CHECKPOINT_FORMAT, "statistics": None, "files": [asdict(one) for one in records]}
        manifest = json.dumps(checkpoint.manifest | named, indent=1, sort_keys=True).encode()
        target.write(checkpoint_path(checkpoint.step, "model", MANIFEST), manifest)
        pointer = {
            "step": checkpoint.step,
            "attempt": "model",
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "epoch": int(checkpoint.manifest.get("epoch", 0)),
            "first_step": checkpoint.step,
        }
        target.write(LATEST, json.dumps(pointer).encode())
        now_s = time.time()
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
        record = VersionRecord(
            format=FORMAT, number=number, finished_at=finished, finished_at_s=now_s, **lineage.values()
        )
        folder.write(RECORD, json.dumps(record.values(), indent=1, sort_keys=True).encode())
        return self.version(number)

    def promote(self, number: int, lease: Lease, why: str) -> Current:
        """Make a version the one in use, once all of its files have been verified.

        Raises:
            InputError: no such version, or one that does not verify.
            RunError: another process has taken over the lease.

        """
        self.version(number).verify()
        return self._move(lease, why, lambda stack: (*[n for n in stack if n != number], number))

    def roll_back(self, lease: Lease) -> Current:
        """Put the version in use that was in use before; errors as for :meth:`promote`."""
        before = self.current()
        if before is None or len(before.stack) < 2:
            raise InputError(f"{self.folder.url} has no version that was in use before: nothing to roll back to")
        self.version(before.stack[-2]).verify()
        return self._move(lease, f"rolled back from {before.number}", lambda stack: stack[:-1])

    def prune(self, keep: int) -> list[int]:
        """Delete all but the newest ``keep`` versions and attempts and those in use now or next; return versions."""
        current = self.current()
        needed = set(current.stack[-max(2, keep) :]) if current else set()
        gone = [number for number in self.numbers()[:-keep] if number not in needed]
        for number in gone:
            folder = self._version_folder(number)
            folder.delete(RECORD)  # first: half a deletion is no version
            folder.delete_tree()
        for number in self.attempts()[:-keep]:
            self.attempt(number).delete_tree()
        return gone

    def _version_folder(self, number: int) -> Folder:
        return self.folder.child(VERSIONS, f"{number:0{VERSION_DIGITS}d}")

    def _read_current(self, data: bytes) -> Current:
        name = f"{self.folder.url}/{CURRENT}"
        record = read_record(CurrentRecord, data, name)
        if record.stack[-1] != record.version:
            raise damaged_record(name, f"it names version {record.version}, and {record.stack[-1]} as the last in use")
        return Current(record.stack, record.epoch, record.log)

    def _move(self, lease: Lease, why: str, stack_after: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Current:
        def moved(data: bytes | None) -> bytes:
            before = None if data is None else self._read_current(data)
            if before is not None and before.epoch > lease.epoch:
                raise RunError(
                    f"{self.folder.url}/{CURRENT} was moved by a process with a later lease (epoch {before.epoch}, "
                    f"ours is {lease.epoch}): it is left as it is"
                )
            stack = stack_after(before.stack if before else ())
            log = (*(before.log if before else ()), Move(version=stack[-1], at_s=time.time(), why=why))
            lease.check()
            record = CurrentRecord(version=stack[-1], epoch=lease.epoch, stack=stack, log=log)
            return json.dumps(record.values(), indent=1).encode()

        return self._read_current(self.folder.update(CURRENT, moved))


def is_sound(version: Version) -> bool:
    """Return whether all files of ``version`` are those that were recorded."""
    try:
        version.verify()
    except FreqganError:
        return False
    return True
