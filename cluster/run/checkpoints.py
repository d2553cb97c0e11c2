"""Checkpoints: ``<run>/checkpoints/<step>/<attempt>/`` with one safetensors file per stage.

Order of writing: every stage's files, then ``manifest.json`` (sizes, sha256, settings, data position),
then ``LATEST`` by a conditional write. A folder without a manifest is not a checkpoint, so a killed upload
leaves nothing readable. An attempt has a folder of its own: two writers of one step never mix their files.
One process at a time holds the ``LEASE`` of a run; it deletes what others have left unfinished.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.run.settings import RunSettings
from cluster.storage.checksummed_files import FileRecord, read_verified, write_recorded
from cluster.storage.folder import Folder, open_folder
from cluster.storage.lease import Lease
from freqgan import __version__
from freqgan.errors import FreqganError, InputError, RunError
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.band_statistics import BandStatistics
from freqgan.setting_group import AS_STORED

FORMAT = 1
MANIFEST = "manifest.json"
LATEST = "LATEST"
LEASE = "LEASE"
BEST = "BEST"
STATISTICS = "statistics.safetensors"
CURRENT = "CURRENT"
VERSIONS = "versions"
VERSION_DIGITS = 6
"""Of a model's folder, see :mod:`cluster.run.model_registry`."""


@dataclass
class Checkpoint:
    """A committed checkpoint; ``notes`` say what was passed over to find it."""

    step: int
    folder: Folder
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def settings(self) -> RunSettings:
        """The settings it was trained with."""
        return RunSettings.model_validate(self.manifest["settings"], context=AS_STORED)

    @property
    def images(self) -> int:
        """Images seen."""
        return int(self.manifest["images"])

    @property
    def records(self) -> list[FileRecord]:
        """Every file with size and sha256."""
        return [FileRecord(**record) for record in self.manifest["files"]]

    def record(self, name: str) -> FileRecord:
        """The record of one file."""
        return next(record for record in self.records if record.name == name)

    def states(self) -> dict[str, dict[str, Tensor]]:
        """All tensors (weights, averages, optimiser moments) by stage, verified."""
        names = [record.name for record in self.records if record.name.endswith(".safetensors")]
        return {n.removesuffix(".safetensors"): self._tensors(n) for n in names if n != STATISTICS}

    def statistics(self) -> BandStatistics:
        """The band statistics, verified."""
        return BandStatistics.from_tensors(self._tensors(STATISTICS))

    def synthesiser(self) -> Synthesiser:
        """The generators of this checkpoint, on the CPU."""
        return Synthesiser(self.settings, self.statistics(), self.states())

    def digest(self) -> str:
        """sha256 over the name, type, shape and bytes of every weight and optimiser state, in the order of names."""
        total = hashlib.sha256()
        for stage, tensors in sorted(self.states().items()):
            scalars = read_verified(self.folder, self.record(f"{stage}.json"))
            total.update(stage.encode() + scalars)
            for name, tensor in sorted(tensors.items()):
                total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                total.update(tensor.numpy().tobytes())
        return total.hexdigest()

    def verify(self) -> None:
        """RunError unless every file is there and has the recorded size and sha256."""
        for record in self.records:
            read_verified(self.folder, record)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        loaded: dict[str, Tensor] = load_safetensors(read_verified(self.folder, self.record(name)))
        return loaded


class CheckpointWriter:
    """Commits checkpoints of one run; every process that writes has an attempt of its own.

    Args:
        settings: of the run.
        statistics: of its bands.
        data_fingerprint: of its shards.
        lease: held on the run; its epoch fences off who held it before.
        first_step: at which this process began.

    """

    def __init__(
        self,
        settings: RunSettings,
        statistics: BandStatistics,
        data_fingerprint: str,
        lease: Lease | None = None,
        first_step: int = 0,
    ) -> None:
        self.settings, self.statistics, self.data_fingerprint = settings, statistics, data_fingerprint
        self.lease, self.first_step = lease, first_step
        self.root = open_folder(settings.run).child("checkpoints")
        self.attempt = uuid.uuid4().hex[:12]

    def folder(self, step: int) -> Folder:
        """Where the stages write their files of ``step``."""
        return self.root.child(f"{step:09d}", self.attempt)

    def commit(self, step: int, records: list[FileRecord]) -> Checkpoint:
        """Makes the files of ``step`` a checkpoint: statistics, manifest, LATEST, in this order; then prunes.

        Raises:
            RunError: another process has taken over this run; nothing that it can see has changed.

        """
        folder = self.folder(step)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.statistics.tensors().items()}
        records = [*records, write_recorded(folder, STATISTICS, save_safetensors(tensors))]
        images = step * self.settings.batch
        dump = self.settings.model_dump(mode="json")
        manifest = {
            "format": FORMAT,
            "version": __version__,
            "step": step,
            "epoch": self.lease.epoch if self.lease else 0,
            "images": images,
            "data": {"fingerprint": self.data_fingerprint, "position": images},
            "settings": dump,
            "settings_sha256": _settings_sha256(dump),
            "plan": [gan.name for gan in self.settings.band_plan().gans],
            "files": [asdict(record) for record in sorted(records, key=lambda r: r.name)],
        }
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        if self.lease is not None:
            self.lease.check()
        folder.write(MANIFEST, text)
        self._point_to(step, hashlib.sha256(text).hexdigest())
        self._prune()
        return Checkpoint(step, folder, manifest)

    def _point_to(self, step: int, manifest_sha256: str) -> None:
        """Moves LATEST, unless somebody with a later epoch has moved it."""
        epoch = self.lease.epoch if self.lease else 0
        pointer = {
            "step": step,
            "attempt": self.attempt,
            "manifest_sha256": manifest_sha256,
            "epoch": epoch,
            "first_step": self.first_step,
            "at_s": time.time(),
        }

        def moved(before: bytes | None) -> bytes:
            theirs = 0 if before is None else _epoch(before)
            if theirs > epoch:
                raise RunError(
                    f"{self.root.url}/{LATEST} was moved by a process with a later lease (epoch {theirs}, ours is "
                    f"{epoch}); the checkpoint of step {step} is not committed. Is the same run started twice?"
                )
            return json.dumps(pointer).encode()

        self.root.update(LATEST, moved)

    def mark(self, step: int, fit: float) -> bool:
        """Makes ``step`` the best checkpoint if its ``fit`` is lower than that of the best so far; whether it is."""
        best = best_checkpoint(self.root)
        if best is not None and best[1] <= fit and best[0] != step:
            return False
        self.root.write(BEST, json.dumps({"step": step, "fit": fit}).encode())
        return True

    def _prune(self) -> None:
        """Deletes all but the newest checkpoints and the best, manifest first: half a deletion is no checkpoint."""
        committed = _candidates(self.root)[::-1]
        best = best_checkpoint(self.root)
        for step, attempt in committed[: -self.settings.keep_checkpoints]:
            if best is not None and step == best[0]:
                continue
            folder = self.root.child(f"{step:09d}", attempt)
            folder.delete(MANIFEST)
            folder.delete_tree()
            if not (step_folder := self.root.child(f"{step:09d}")).list():
                step_folder.delete_tree()
        self.prune_unfinished()

    def prune_unfinished(self) -> None:
        """Deletes the attempts of others that came to no manifest, while the lease says that nobody else writes."""
        if self.lease is None:
            return
        names = self.root.list()
        committed = set(_committed_among(names))
        attempts = _attempts_on_disk(self.root) if self.root.is_local else _attempts_among(names)
        unfinished = {a for a in attempts if a[1] != self.attempt and (int(a[0]), a[1]) not in committed}
        if unfinished:
            self.lease.check()
        for step, attempt in unfinished:
            self.root.child(step, attempt).delete_tree()
            self.root.child(step).delete_if_empty()


def _epoch(pointer: bytes) -> int:
    """The epoch that a LATEST carries; 0 for one of before there were leases, or a torn one."""
    try:
        return int(json.loads(pointer).get("epoch", 0))
    except (ValueError, AttributeError, TypeError):
        return 0


def best_checkpoint(root: Folder) -> tuple[int, float] | None:
    """(step, fit) of the checkpoint that was scored best, where any was."""
    try:
        pointer = json.loads(root.read(BEST)) if root.exists(BEST) else None
        return None if pointer is None else (int(pointer["step"]), float(pointer["fit"]))
    except (ValueError, KeyError, TypeError):
        return None


def find_checkpoint(run: str, *, step: int | None = None, best: bool = False) -> Checkpoint:
    """The newest checkpoint of ``run`` that verifies; those passed over are in its ``notes``.

    Of the folder of a model it is that of the version in use. ``step`` asks for that one alone, ``best`` for the one
    that was scored best.

    Raises:
        InputError: the run has no such checkpoint, or none that verifies.

    """
    notes: list[str] = []
    root = (_version_in_use(run) or open_folder(run)).child("checkpoints")
    if best:
        marked = best_checkpoint(root)
        if marked is None:
            raise InputError(f"{run} has no best checkpoint: train with watch.data=SHARDS to have checkpoints scored")
        step = marked[0]
    for found, attempt in _candidates(root):
        if step is not None and found != step:
            continue
        folder = root.child(f"{found:09d}", attempt)
        try:
            checkpoint = _read(folder, found)
            checkpoint.verify()
        except FreqganError as error:
            notes.append(f"checkpoint of step {found} passed over: {error}")
            continue
        checkpoint.notes = notes
        return checkpoint
    if notes:
        raise InputError("no checkpoint can be used; " + "; ".join(notes) + "; give another run folder")
    if step is not None:
        raise InputError(
            f"{run} holds no checkpoint of step {step}; there are {sorted({s for s, _ in _committed(root)})}"
        )
    fault = "holds no checkpoint" if open_folder(run).is_there() else "is not there"
    raise InputError(f"{run} {fault}: name the run folder of a training that has saved a checkpoint")


def _version_in_use(run: str) -> Folder | None:
    """Where CURRENT leads, in the folder of a model."""
    found = open_folder(run).read_tagged(CURRENT)
    if found is None:
        return None
    try:
        return open_folder(run).child(VERSIONS, f"{int(json.loads(found[0])['version']):0{VERSION_DIGITS}d}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}/{CURRENT} is damaged ({error}): name a version below {run}/{VERSIONS}") from error


def has_checkpoints(run: str) -> bool:
    """Whether ``run``, or the version in use of a model, holds a committed checkpoint, sound or not."""
    return any(True for _ in _committed((_version_in_use(run) or open_folder(run)).child("checkpoints")))


def _candidates(root: Folder) -> list[tuple[int, str]]:
    """(step, attempt) from the newest; of one step, the attempt that LATEST names first.

    Left out are steps that a process committed after another had taken the run over from an earlier one.
    """
    try:
        pointer = json.loads(root.read(LATEST)) if root.exists(LATEST) else {}
        preferred = (pointer.get("step"), pointer.get("attempt"))
        epoch, first_step = int(pointer.get("epoch", 0)), int(pointer.get("first_step", 0))
    except (ValueError, AttributeError, TypeError):
        preferred, epoch, first_step = (None, None), 0, 0
    found = sorted(_committed(root), key=lambda c: (c[0], c == preferred), reverse=True)
    return [c for c in found if c[0] <= first_step or c == preferred or not _is_fenced(root, *c, epoch)]


def _is_fenced(root: Folder, step: int, attempt: str, epoch: int) -> bool:
    """Whether the manifest says that its writer's lease came before ``epoch``."""
    if epoch <= 1:
        return False
    try:
        return int(json.loads(root.read(f"{step:09d}/{attempt}/{MANIFEST}")).get("epoch", 0)) < epoch
    except (FreqganError, ValueError, AttributeError, TypeError):
        return False  # whoever reads it says what is wrong with it


def _committed(root: Folder) -> Iterator[tuple[int, str]]:
    return _committed_among(root.list())


def _committed_among(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    return ((int(step), attempt) for step, attempt in _attempts_among(names, MANIFEST))


def _attempts_among(names: Sequence[str], having: str | None = None) -> Iterator[tuple[str, str]]:
    """(folder of a step, attempt) of the objects ``names``, or of those called ``having`` alone."""
    for name in names:
        step, *rest = name.split("/")
        if len(rest) == 2 and step.isdecimal() and having in (None, rest[1]):
            yield step, rest[0]


def _attempts_on_disk(root: Folder) -> Iterator[tuple[str, str]]:
    """The same of all, also of those that hold nothing but temporary files."""
    for step in filter(str.isdecimal, root.subfolders()):
        yield from ((step, attempt) for attempt in root.child(step).subfolders())


def _read(folder: Folder, step: int) -> Checkpoint:
    try:
        manifest = json.loads(folder.read(MANIFEST))
        if manifest["format"] != FORMAT:
            raise RunError(f"{folder.url}/{MANIFEST} has format {manifest['format']}, this version reads {FORMAT}")
        checkpoint = Checkpoint(step, folder, manifest)
        _ = checkpoint.settings
        if manifest["step"] != step or _settings_sha256(manifest["settings"]) != manifest["settings_sha256"]:
            raise RunError(f"{folder.url}/{MANIFEST} does not belong to step {step} of these settings")
        _ = checkpoint.records, checkpoint.images
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, FreqganError):
            raise
        raise RunError(
            f"{folder.url}/{MANIFEST} is no manifest of this program: {type(error).__name__}: {error}"
        ) from error
    return checkpoint


def _settings_sha256(settings: Mapping[str, Any]) -> str:
    """Of the settings as they are stored: one that a later version adds must not make a checkpoint unreadable."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
