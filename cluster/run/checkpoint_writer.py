"""Writing checkpoints: ``<run>/checkpoints/<step>/<attempt>/``, see :mod:`cluster.run.layout` for its files.

Order of writing: every stage's files, then ``manifest.json`` (sizes, sha256, settings, data position), then ``LATEST``
by a conditional write. A folder without a manifest is not a checkpoint, so a killed upload leaves nothing readable. An
attempt has a folder of its own: two writers of one step never mix their files. One process at a time holds the
``LEASE`` of a run; it deletes what others have left unfinished.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from safetensors.torch import save as save_safetensors

from cluster.run.base_record import BaseRecord
from cluster.run.checkpoint import (
    FORMAT,
    Checkpoint,
    data_record,
    settings_sha256,
)
from cluster.run.checkpoint_listing import attempts_among, best_checkpoint, candidates, committed_among
from cluster.run.layout import (
    BEST,
    CHECKPOINTS,
    LATEST,
    MANIFEST,
    ROLLBACK,
    STATISTICS,
    checkpoint_path,
    parse_rollback_file,
)
from cluster.run.settings import RunSettings
from cluster.storage.checksummed_files import FileRecord, write_recorded
from cluster.storage.folder import Folder, open_folder
from cluster.storage.lease import Lease
from freqgan import __version__
from freqgan.errors import FreqganError, RunError
from freqgan.metrics.catalogue import Yardstick
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.stage_names import stage_names


class CheckpointWriter:
    """Commits checkpoints of one run; every process that writes has an attempt of its own.

    Args:
        settings: of the run.
        statistics: of its bands.
        data_fingerprint: of its shards.
        lease: held on the run; its epoch fences off who held it before.
        first_step: at which this process began.
        class_names: of labels 0, 1 ..., as far as they are known.
        base: the model whose images this one is shown, if any.
        values: what stored numbers mean, as far as it is known.

    """

    def __init__(
        self,
        settings: RunSettings,
        statistics: BandStatistics,
        data_fingerprint: str,
        lease: Lease | None = None,
        first_step: int = 0,
        class_names: Sequence[str] = (),
        base: BaseRecord | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.statistics, self.data_fingerprint = settings, statistics, data_fingerprint
        self.lease, self.first_step, self.class_names = lease, first_step, tuple(class_names)
        self.base, self.values = base, values
        self.root = open_folder(settings.run).child(CHECKPOINTS)
        self.attempt = uuid.uuid4().hex[:12]
        self._files_named: dict[tuple[int, str], frozenset[str]] = {}

    def folder(self, step: int) -> Folder:
        """Return the folder of the checkpoint of ``step``."""
        return self.root.child(checkpoint_path(step, self.attempt))

    def commit(self, step: int, records: list[FileRecord]) -> Checkpoint:
        """Make the files of ``step`` a checkpoint: statistics, manifest, LATEST, in this order; then prune.

        Args:
            step: how many steps every stage has finished.
            records: the files of all stages, named relative to the folder of checkpoints.

        Raises:
            RunError: another process has taken over this run; nothing that it can see has changed.

        """
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.statistics.tensors().items()}
        statistics = checkpoint_path(step, self.attempt, STATISTICS)
        records = [*records, write_recorded(self.root, statistics, save_safetensors(tensors))]
        manifest = self._manifest(step, records)
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        if self.lease is not None:
            self.lease.check()
        self.root.write(checkpoint_path(step, self.attempt, MANIFEST), text)
        self._point_to(step, hashlib.sha256(text).hexdigest())
        self._prune()
        return Checkpoint(step, self.root, self.attempt, manifest)

    def _manifest(self, step: int, records: list[FileRecord]) -> dict[str, Any]:
        images = step * self.settings.batch
        dump = self.settings.model_dump(mode="json")
        plan = self.settings.band_plan()
        return ({} if self.base is None else self.base.entry()) | {
            "format": FORMAT,
            "version": __version__,
            "step": step,
            "stages": dict.fromkeys(stage_names(self.settings), step),
            "epoch": self.lease.epoch if self.lease else 0,
            "images": images,
            "data": data_record(self.data_fingerprint, images, self.class_names, self.values),
            "settings": dump,
            "settings_sha256": settings_sha256(dump),
            "plan": [gan.name for gan in plan.gans],
            "files": [asdict(record) for record in sorted(records, key=lambda r: r.name)],
        }

    def _point_to(self, step: int, manifest_sha256: str) -> None:
        """Move LATEST, unless somebody with a later epoch has moved it."""
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

    def mark(self, step: int, fit: float, yardstick: Yardstick = "bands") -> bool:
        """Make ``step`` the best checkpoint if its ``fit`` is lower than that of the best; return whether it is.

        One that was measured by another ``yardstick`` is the best no more: the two numbers cannot be compared.
        """
        best = best_checkpoint(self.root)
        if best is not None and best.yardstick == yardstick and best.fit <= fit and best.step != step:
            return False
        self.root.write(BEST, json.dumps({"step": step, "fit": fit, "yardstick": yardstick}).encode())
        return True

    # -- deleting ------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Delete all but the newest checkpoints and the best, manifest first: half a deletion is no checkpoint."""
        committed = candidates(self.root, self.root.list())[::-1]
        best = best_checkpoint(self.root)
        for step, attempt in committed[: -self.settings.keep_checkpoints]:
            if best is not None and step == best.step:
                continue
            folder = self.root.child(checkpoint_path(step, attempt))
            folder.delete(MANIFEST)
            folder.delete_tree()
            if not (step_folder := self.root.child(f"{step:09d}")).list():
                step_folder.delete_tree()
        names = self.prune_unfinished()
        self._prune_rollback_states(names)

    def prune_unfinished(self) -> list[str]:
        """Delete the attempts of others that came to no manifest, while the lease says that nobody else writes.

        Returns the names of all objects there were before.
        """
        names = self.root.list()
        if self.lease is None:
            return names
        committed = set(committed_among(names))
        attempts = _attempts_on_disk(self.root) if self.root.is_local else attempts_among(names)
        unfinished = {a for a in attempts if a[1] != self.attempt and (int(a[0]), a[1]) not in committed}
        if unfinished:
            self.lease.check()
        for step, attempt in unfinished:
            self.root.child(step, attempt).delete_tree()
            self.root.child(step).delete_if_empty()
        return names

    def _prune_rollback_states(self, names: Collection[str]) -> None:
        """Delete the states to go back to that no manifest names any more.

        Of this process only those older than the newest that is named: a younger one may belong to a checkpoint that
        is still on its way. Of others only while the lease says that nobody else writes.
        """
        named = self._rollback_states_named(names)
        if named is None:
            return
        newest: dict[str, int] = {}
        for stage, step in filter(None, map(parse_rollback_file, named)):
            newest[stage] = max(step, newest.get(stage, 0))
        for name in names:
            folder, _, rest = name.partition("/")
            state = parse_rollback_file(name)
            if folder != ROLLBACK or name in named or state is None:
                continue
            attempt = rest.partition("/")[0]
            if state[1] < newest.get(state[0], 0) if attempt == self.attempt else self.lease is not None:
                self.root.delete(name)
                self.root.child(ROLLBACK, attempt).delete_if_empty()

    def _rollback_states_named(self, names: Collection[str]) -> frozenset[str] | None:
        """Return those that any manifest among ``names`` names; None where a manifest cannot be read."""
        committed = set(committed_among(names))
        known = {key: files for key, files in self._files_named.items() if key in committed}
        for step, attempt in committed - known.keys():
            try:
                manifest = json.loads(self.root.read(checkpoint_path(step, attempt, MANIFEST)))
                files = frozenset(file["name"] for file in manifest["files"])
            except (FreqganError, ValueError, KeyError, TypeError):
                return None
            known[step, attempt] = frozenset(name for name in files if name.startswith(f"{ROLLBACK}/"))
        self._files_named = known
        return frozenset().union(*known.values())


def _epoch(pointer: bytes) -> int:
    """Return the epoch that a LATEST carries; 0 for one of before there were leases, or a torn one."""
    try:
        return int(json.loads(pointer).get("epoch", 0))
    except (ValueError, AttributeError, TypeError):
        return 0


def _attempts_on_disk(root: Folder) -> Iterator[tuple[str, str]]:
    """(folder of a step, attempt) of all, also of those that hold nothing but temporary files."""
    for step in filter(str.isdecimal, root.subfolders()):
        yield from ((step, attempt) for attempt in root.child(step).subfolders())
