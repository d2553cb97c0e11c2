"""The teacher of a run of students: the averaged weights of flow experts and the statistics of their bands.

They are copied into the folder of the run, so that it can be resumed whatever becomes of the run they come from. The
record is written last: where it is, the other files are whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from cluster.run.layout import STATISTICS, TEACHER, TEACHER_RECORD, averages_file, whole_run
from cluster.run.model_record import RESTORE, StoredRecord, damaged_record, read_record
from cluster.run.settings import RunSettings, differing_keys
from cluster.storage.checksummed_files import DamagedFileError, FileRecord, read_verified, write_files
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError, first_line
from freqgan.model.band_statistics import BandStatistics
from freqgan.setting_group import AS_STORED

FORMAT = 1
REMEDY = f"{RESTORE}, or distil into another run="
SHAPING = ("image_size", "channels", "bit_depth", "classes", "transform", "packets", "levels", "plan")
"""Settings that must be the teacher's, beside those of its networks: they decide which experts there are."""


class StoredFile(StoredRecord):
    """A file of the teacher, as :class:`FileRecord`."""

    name: str
    size_bytes: int
    sha256: str


class TeacherRecord(StoredRecord):
    """Where a teacher comes from, and its files.

    Attributes:
        format: of this record.
        run: URL of the folder that it was trained in.
        step: of its checkpoint.
        settings: that it was trained with.
        files: named relative to the folder of the teacher.

    """

    format: int
    run: str
    step: int
    settings: dict[str, Any]
    files: tuple[StoredFile, ...]


@dataclass(frozen=True)
class Teacher:
    """A teacher in the folder of a run of students. All errors are InputError, with the file and the remedy."""

    folder: Folder
    record: TeacherRecord

    @cached_property
    def settings(self) -> RunSettings:
        """The settings that it was trained with."""
        try:
            return RunSettings.model_validate(self.record.settings, context=AS_STORED)
        except ValidationError as error:
            raise damaged_record(f"{self.folder.url}/{TEACHER_RECORD}", first_line(error), REMEDY) from error

    def averages(self, stage: str) -> dict[str, Tensor]:
        """Return the averaged weights (...) of a flow expert, by their names in its state."""
        return load_safetensors(self._read(averages_file(stage)))

    def statistics(self) -> BandStatistics:
        """Return the statistics of the bands, in whose units its networks think."""
        return BandStatistics.from_tensors(load_safetensors(self._read(STATISTICS)))

    def verify(self) -> None:
        """Raise InputError unless every file is as it was recorded."""
        for file in self.record.files:
            self._read(file.name)

    def check_shape(self, settings: RunSettings) -> None:
        """Raise InputError where students of ``settings`` have other bands or networks than this teacher."""
        check_shape(settings, self.settings, self.record.run)

    def check_source(self, run: str, step: int | None) -> None:
        """Raise InputError unless it was copied from ``run``, and from the checkpoint of ``step`` if that is given."""
        url, students = open_folder(run).url, self.folder.url.removesuffix(f"/{TEACHER}")
        if url != self.record.run or step not in (None, self.record.step):
            asked = url if step is None else f"step {step} of {url}"
            raise InputError(
                f"{students} has begun to learn of step {self.record.step} of {self.record.run}, and is asked to learn "
                f"of {asked}: give another run=, or go on with `freqgan train {students}/config.yaml`"
            )

    def _read(self, name: str) -> bytes:
        stored = next((file for file in self.record.files if file.name == name), None)
        if stored is None:
            raise damaged_record(f"{self.folder.url}/{TEACHER_RECORD}", f"it lists no {name}", REMEDY)
        try:
            return read_verified(self.folder, FileRecord(stored.name, stored.size_bytes, stored.sha256))
        except DamagedFileError as error:
            raise InputError(f"the teacher of these students: {error}; {REMEDY}") from error


def shape_of(settings: RunSettings) -> dict[str, Any]:
    """Return what must be equal for students of ``settings`` to have the bands and the networks of their teacher."""
    dump = settings.model_dump(mode="json")
    flow = dump["flow"]
    networks = {f"flow.{key}": flow[key] for key in ("coarse_network", "band_network")}
    others = {"flow.guide_at": flow["guide_at"], "conditioning": settings.target_layout.shape}
    return {key: dump[key] for key in SHAPING} | networks | others


def check_shape(students: RunSettings, teacher: RunSettings, teacher_run: str) -> None:
    """Raise InputError where ``students`` have other bands or networks than the ``teacher`` of ``teacher_run``."""
    differing = differing_keys(shape_of(students), shape_of(teacher))
    if differing:
        rows = ", ".join(f"{key} is {old!r} there and {new!r} here" for key, (new, old) in differing.items())
        raise InputError(
            f"{students.run} has students of other bands or networks than those of their teacher, {teacher_run}: "
            f"{rows}; leave these settings as they are there"
        )


def has_students(settings: RunSettings) -> bool:
    """Return whether a run of ``settings`` needs a teacher."""
    return any(gan.kind == "student" for gan in settings.band_plan().gans)


def find_teacher(run: str) -> Teacher | None:
    """Return the teacher in the folder ``run``, if there is one; InputError where its record is damaged."""
    folder = open_folder(run).child(TEACHER)
    if not folder.exists(TEACHER_RECORD):
        return None
    record = read_record(TeacherRecord, folder.read(TEACHER_RECORD), f"{folder.url}/{TEACHER_RECORD}", REMEDY)
    return Teacher(folder, record)


def open_teacher(settings: RunSettings) -> Teacher:
    """Return the teacher of the students of ``settings``, which suits them.

    Raises:
        InputError: there is none, its record is damaged, or it has other bands or networks.

    """
    teacher = find_teacher(whole_run(settings.run, settings.only))
    if teacher is None:
        raise InputError(
            f"{settings.run} holds no teacher, of which its students (experts) are to learn: begin with `freqgan "
            f"distil RUN run={settings.run}`, where RUN is a run of flow experts"
        )
    teacher.check_shape(settings)
    return teacher


def copy_teacher(run: str, checkpoint: Checkpoint, averages: Mapping[str, Mapping[str, Tensor]]) -> Teacher:
    """Copy the flow experts of ``checkpoint`` into the folder ``run``; return the teacher that is there now.

    Where another process has just copied one, it is that. ``averages`` (...) are those of the checkpoint, by stage.
    """
    folder, settings = open_folder(run).child(TEACHER), checkpoint.settings
    files = {averages_file(name): save_safetensors(dict(tensors)) for name, tensors in averages.items()}
    files[STATISTICS] = save_safetensors(checkpoint.statistics().tensors())
    stored = write_files(folder.url, files)
    record = {
        "format": FORMAT,
        "run": checkpoint.root.url.rpartition("/")[0],
        "step": checkpoint.step,
        "settings": settings.model_dump(mode="json"),
        "files": [{"name": r.name, "size_bytes": r.size_bytes, "sha256": r.sha256} for r in stored],
    }
    data = json.dumps(record, indent=1).encode()
    folder.write_if(TEACHER_RECORD, data, None)
    written = folder.read(TEACHER_RECORD)
    return Teacher(folder, read_record(TeacherRecord, written, f"{folder.url}/{TEACHER_RECORD}", REMEDY))
