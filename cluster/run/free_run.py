"""The folder of a run at a free pace: what its components share, and the whole model from their checkpoints.

Every component has a folder below ``components`` that is like that of a run: a lease, checkpoints, logs. What must be
the same for all of them is in one record, which whoever comes first writes by a conditional write: settings, the
fingerprint of the data, and the statistics of the bands. The model is whole when every component has a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cluster.run.base_record import BaseRecord
from cluster.run.checkpoint import (
    FORMAT as CHECKPOINT_FORMAT,
)
from cluster.run.checkpoint import (
    Checkpoint,
    Found,
    UnusableError,
    check_sizes,
    data_record,
    read_manifest,
    settings_sha256,
)
from cluster.run.checkpoint_listing import best_checkpoint, candidates, committed_among
from cluster.run.layout import BEST, CHECKPOINTS, COMPONENTS, SHARED
from cluster.run.model_record import damaged_record
from cluster.run.settings import RunSettings, differing_keys
from cluster.run.shared_record import FORMAT, REMEDY, SharedFile, SharedRecord, read_shared_record
from cluster.storage.checksummed_files import DamagedFileError, FileRecord, read_verified, write_recorded
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError
from freqgan.metrics.catalogue import Yardstick
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.components import Component, components
from freqgan.setting_group import AS_STORED, invalid_values


@dataclass(frozen=True)
class FreeRun:
    """A run at a free pace that somebody has begun. Errors are InputError, with the file and the remedy.

    Attributes:
        folder: ``components`` of the run.
        record: what its components share.

    """

    folder: Folder
    record: SharedRecord

    @cached_property
    def settings(self) -> RunSettings:
        """The settings of the whole run."""
        try:
            return RunSettings.model_validate(self.record.settings, context=AS_STORED)
        except ValidationError as error:
            raise damaged_record(f"{self.folder.url}/{SHARED}", invalid_values(error), REMEDY) from error

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The stages that train together, in the order of the chain."""
        return components(self.settings)

    def statistics(self) -> BandStatistics:
        """Return the statistics of the bands, verified."""
        try:
            return BandStatistics.from_tensors(load_safetensors(read_verified(self.folder, self._statistics)))
        except DamagedFileError as error:
            raise InputError(f"{error}; {REMEDY}") from error

    def check(self, settings: RunSettings, fingerprint: str) -> None:
        """Raise InputError unless ``settings`` and the data of that ``fingerprint`` are those that the run has."""
        run = self.folder.url.rpartition("/")[0]
        if differing := differing_keys(settings.identity(), self.settings.identity()):
            rows = ", ".join(f"{key} is {old!r} there and {new!r} here" for key, (new, old) in differing.items())
            raise InputError(f"{run} was begun with other settings: {rows}; use the same values or another run=")
        if fingerprint != self.record.data:
            raise InputError(
                f"data: the shards of {settings.data} are not those {run} was begun with ({self.settings.data}); give "
                "the same shards or another run="
            )

    def checkpoints_of(self, component: str) -> Folder:
        """Return the folder of the checkpoints of a component."""
        return self.folder.child(component, CHECKPOINTS)

    def newest_images(self) -> dict[str, int | None]:
        """Return how many images the newest usable checkpoint of each component has seen; None where there is none."""
        newest = {part.name: self.newest_of(part) for part in self.components}
        return {name: None if one is None else one.images for name, one in newest.items()}

    def newest_of(self, part: Component) -> Checkpoint | None:
        """Return the newest usable checkpoint of a component, None where there is none."""
        return next(self._usable(part, Choice()), None)

    def open(self, read: Callable[[Checkpoint], Found], choice: Choice, note: Callable[[str], None]) -> Found:
        """Return what ``read`` makes of the whole model: the newest checkpoint of each component that suits ``choice``.

        A component whose checkpoint turns out to be damaged falls back to the one before.

        Raises:
            InputError: a component has none.

        """
        while True:
            notes: list[str] = []
            parts = {part.name: next(self._usable(part, choice, notes), None) for part in self.components}
            checkpoint = self._whole(parts, choice, notes)
            try:
                result = read(checkpoint)
            except DamagedFileError as error:
                choice = self._without_damage(parts, choice, error)
                continue
            for text in notes:
                note(text)
            return result

    def mark(self, checkpoint: Checkpoint, fit: float, yardstick: Yardstick) -> bool:
        """Make ``checkpoint``, of the whole model, the best one if its ``fit`` is the lowest; return whether it is.

        The mark is in the folder of every component, so that none deletes its part of it.
        """
        best = best_checkpoint(self.folder)
        if best is not None and best.yardstick == yardstick and best.fit <= fit and best.step != checkpoint.step:
            return False
        steps = checkpoint.stage_steps
        for part in self.components:
            own = {"step": steps[part.name], "fit": fit, "yardstick": yardstick}
            self.checkpoints_of(part.name).write(BEST, json.dumps(own).encode())
        self.folder.write(BEST, json.dumps({"step": checkpoint.step, "fit": fit, "yardstick": yardstick}).encode())
        return True

    # -- parts -----------------------------------------------------------------------------------

    @cached_property
    def _statistics(self) -> FileRecord:
        file = self.record.statistics
        return FileRecord(file.name, file.size_bytes, file.sha256)

    def _usable(self, part: Component, choice: Choice, notes: list[str] | None = None) -> Iterator[Checkpoint]:
        """Yield the checkpoints of ``part`` that suit ``choice`` and look whole, from the newest."""
        root = self.checkpoints_of(part.name)
        marked = best_checkpoint(root) if choice.best else None
        sizes = root.sizes()
        for step, attempt in choice.ordered(candidates(root, sizes), self.settings.batch):
            if marked is not None and step != marked.step:
                continue
            try:
                if (part.name, step, attempt) in choice.damaged:
                    raise UnusableError(choice.damaged[part.name, step, attempt])
                checkpoint = read_manifest(root, step, attempt)
                check_sizes(checkpoint, sizes)
            except (UnusableError, DamagedFileError) as error:
                if notes is not None:
                    notes.append(f"{part.name}: checkpoint of step {step} passed over: {error}")
                continue
            yield checkpoint

    def _whole(self, parts: Mapping[str, Checkpoint | None], choice: Choice, notes: list[str]) -> Checkpoint:
        """Return one checkpoint with the files of all ``parts``; its step and images are those of the last of them."""
        there = {name: checkpoint for name, checkpoint in parts.items() if checkpoint is not None}
        run = self.folder.url.rpartition("/")[0]
        if missing := [name for name in parts if name not in there]:
            passed = "; ".join(["", *notes])
            train = f"train what is missing with `freqgan train SETTINGS run={run} only={','.join(missing)}`"
            ask = "ask for more images, since older checkpoints are deleted (keep_checkpoints)"
            raise InputError(
                f"{run} is no whole model yet: {choice.text} of {', '.join(missing)} is missing; "
                f"{train if choice.images is None else ask}{passed}"
            )
        settings = self._settings_of(there.values())
        dump = settings.model_dump(mode="json")
        files = [
            {"name": f"{name}/{CHECKPOINTS}/{r.name}", "size_bytes": r.size_bytes, "sha256": r.sha256}
            for name, checkpoint in there.items()
            for r in checkpoint.records
            if r.name != checkpoint.statistics_name
        ]
        steps = {name: step for checkpoint in there.values() for name, step in checkpoint.stage_steps.items()}
        batch, done = settings.batch, self._is_done(there)
        step = settings.last_step if done else min(steps.values())
        manifest = {
            "format": CHECKPOINT_FORMAT,
            "step": step,
            "stages": steps,
            "images": min(steps.values()) * batch,
            "data": data_record(
                self.record.data, min(steps.values()) * batch, self.record.classes, self.record.meaning
            ),
            "settings": dump,
            "settings_sha256": settings_sha256(dump),
            "statistics": self._statistics.name,
            "files": [*files, self.record.statistics.model_dump()],
        }
        bases = (BaseRecord.in_manifest(part.manifest) for part in there.values())
        base = next((record for record in bases if record is not None), None)
        return Checkpoint(step, self.folder, "", manifest | (base.entry() if base else {}), list(notes))

    def _settings_of(self, parts: Iterable[Checkpoint]) -> RunSettings:
        """Return the settings of the whole run, with the lowest ``max_steps`` of those who last trained ``parts``.

        Those who began the run may have set another.
        """
        given = [part.settings.max_steps for part in parts]
        limits = [steps for steps in given if steps is not None]
        return self.settings.model_copy(update={"max_steps": min(limits, default=None)})

    def _is_done(self, parts: Mapping[str, Checkpoint]) -> bool:
        return all(checkpoint.step >= checkpoint.settings.last_step for checkpoint in parts.values())

    def _without_damage(
        self, parts: Mapping[str, Checkpoint | None], choice: Choice, error: DamagedFileError
    ) -> Choice:
        """Return ``choice`` without those ``parts`` of which a file is damaged; InputError where it is another file."""
        damaged = dict(choice.damaged)
        for name, part in parts.items():
            if part is not None and (fault := _fault(part)):
                damaged[name, part.step, part.attempt] = fault
        if damaged.keys() == choice.damaged.keys():
            raise InputError(f"{error}; {REMEDY}") from error
        return replace(choice, damaged=damaged)


@dataclass(frozen=True)
class Choice:
    """Which checkpoint of every component is asked for; the newest where nothing is.

    Attributes:
        images: the newest one that has seen no more than so many images.
        step: the newest one of at most so many steps, or the first one after them where those are deleted.
        best: the one that was marked as part of the best model.
        damaged: those to pass over, as {(component, step, attempt): what is wrong}.

    """

    images: int | None = None
    step: int | None = None
    best: bool = False
    damaged: dict[tuple[str, int, str], str] = field(default_factory=dict)

    def ordered(self, there: Sequence[tuple[int, str]], batch: int) -> list[tuple[int, str]]:
        """Return those of ``there``, (step, attempt) from the newest, that may be taken, the best choice first."""
        if self.step is not None:
            limit = self.step
            return [*(one for one in there if one[0] <= limit), *(one for one in there[::-1] if one[0] > limit)]
        return [one for one in there if self.images is None or one[0] * batch <= self.images]

    @property
    def text(self) -> str:
        """How a message calls what is asked for."""
        if self.best:
            return "the best checkpoint"
        return "a checkpoint" if self.images is None else f"a checkpoint of at most {self.images:,} images"


def find_free_run(run: str) -> FreeRun | None:
    """Return the run at a free pace in the folder ``run``; None where no such run has begun there.

    Raises:
        InputError: its record is damaged, or of another version of the program.

    """
    folder = open_folder(run).child(COMPONENTS)
    record = read_shared_record(folder)
    return None if record is None else FreeRun(folder, record)


def begin_free_run(
    settings: RunSettings,
    fingerprint: str,
    measure: Callable[[], BandStatistics],
    class_names: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> FreeRun:
    """Return the run at a free pace in ``settings.run``; begin it where nobody has.

    Args:
        settings: of the whole run.
        fingerprint: of its data.
        measure: gives the statistics of the bands, where they are not there yet.
        class_names: of labels 0, 1 ..., as far as they are known.
        values: what stored numbers mean, as far as it is known.

    Raises:
        InputError: it was begun with other settings or data, or with pace=together.

    """
    run = find_free_run(settings.run)
    if run is None:
        _check_unused(settings.run)
        folder = open_folder(settings.run).child(COMPONENTS)
        _write_record(folder, settings, measure(), fingerprint, class_names, values or {})
        run = find_free_run(settings.run)
    if run is None:
        raise InputError(f"{settings.run}/{COMPONENTS}/{SHARED} was deleted while it was written: run again")
    run.check(settings, fingerprint)
    return run


def _check_unused(run: str) -> None:
    """Raise InputError where ``run`` holds checkpoints of stages that were trained together."""
    if any(committed_among(open_folder(run).child(CHECKPOINTS).list())):
        raise InputError(f"{run} was begun with pace=together: use the same value, or another run=")


def _write_record(
    folder: Folder, settings: RunSettings, statistics: BandStatistics, fingerprint: str, class_names: Sequence[str],
    values: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write what components share, unless somebody was faster: then that stands."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in statistics.tensors().items()}
    data = save_safetensors(tensors)
    file = write_recorded(folder, f"statistics-{hashlib.sha256(data).hexdigest()[:16]}.safetensors", data)
    record = SharedRecord(
        format=FORMAT,
        settings=settings.model_copy(update={"only": ()}).model_dump(mode="json"),
        data=fingerprint,
        statistics=SharedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256),
        classes=tuple(class_names),
        meaning=dict(values),
    )
    folder.write_if(SHARED, json.dumps(record.values(), indent=1, sort_keys=True).encode(), None)


def _fault(part: Checkpoint) -> str:
    """Return what is wrong with the files of a checkpoint; "" where nothing is."""
    try:
        part.verify()
    except DamagedFileError as error:
        return str(error)
    return ""
