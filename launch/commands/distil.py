"""``freqgan distil``: a run of students, each of which learns in one pass what a flow expert makes in many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import has_checkpoints, open_checkpoint
from cluster.run.presence import check_data
from cluster.run.settings import RunSettings
from cluster.run.teacher import check_shape, copy_teacher, find_teacher
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from freqgan.generation.synthesiser import Synthesiser
from launch.settings.load import merged_values, validate_settings

SHARE = 5
"""A student sees one image for so many that its teacher has seen, unless ``images`` is given."""


@dataclass(frozen=True)
class Choice:
    """Which checkpoint is to be the teacher: that of a step, the best scored one, or the newest."""

    run: str
    step: int | None = None
    best: bool = False


def prepare_distillation(
    choice: Choice, texts: list[str], note: Callable[[str], None], *, dry_run: bool = False
) -> RunSettings:
    """Return the settings of the students' run, with a copy of their teacher in its folder.

    A run that has begun goes on with the teacher that is there. ``dry_run`` copies nothing.

    Args:
        choice: of the teacher.
        texts: a settings file or preset, if any, and ``key=value`` texts, over the settings of the teacher.
        note: is told of checkpoints passed over and of what is left out.
        dry_run: write nothing.

    Raises:
        InputError: no run= is given, the teacher has experts that are no flow experts, or settings do not suit it.

    """
    run = merged_values({}, texts).get("run")
    if not run:
        raise InputError("distil: give a folder for the students, run=<folder or s3:// URL>")
    teacher = find_teacher(run)
    if teacher is not None:
        teacher.check_source(choice.run, choice.step)
        settings = students_settings(teacher.settings, texts)
        teacher.check_shape(settings)
        return settings
    if has_checkpoints(run):
        raise InputError(f"{run} holds a training that is no distillation: give another run=")
    checkpoint, averages = _open_teacher(choice, note)
    settings = students_settings(checkpoint.settings, texts)
    check_shape(settings, checkpoint.settings, choice.run)
    if checkpoint.settings.image_stage.enabled:
        note(f"the image stage of {choice.run} is left out: students make what its chain makes")
    check_data(settings.data)
    if not dry_run:
        open_folder(run).check_writable()
        copy_teacher(run, checkpoint, averages)
    return settings


def _open_teacher(choice: Choice, note: Callable[[str], None]) -> tuple[Checkpoint, dict[str, dict[str, Tensor]]]:
    """Return the checkpoint and its averaged weights (...) by the names of its flow experts."""

    def read(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, dict[str, Tensor]]]:
        gans = checkpoint.settings.band_plan().gans
        others = [f"{gan.name}={gan.kind}" for gan in gans if gan.kind != "flow"] or ([] if gans else ["no experts"])
        if others:
            raise InputError(
                f"{choice.run} has {', '.join(others)}: flow experts alone can be distilled; name a run that was "
                "trained with experts.default=flow"
            )
        statistics, averages = checkpoint.statistics(), checkpoint.averages()
        try:
            Synthesiser(checkpoint.settings, statistics, averages)
        except RuntimeError as error:
            raise InputError(
                f"the weights of {choice.run} do not fit the networks of its settings: another version of this program "
                "has written them, and can distil them"
            ) from error
        return checkpoint, {gan.name: averages[gan.name] for gan in gans}

    return open_checkpoint(choice.run, read, step=choice.step, best=choice.best, note=note)


def students_settings(teacher: RunSettings, texts: list[str]) -> RunSettings:
    """Return the settings of students of a run with the settings ``teacher``, changed by ``texts``.

    Raises:
        InputError: as of :func:`launch.settings.load.load_settings`.

    """
    return validate_settings(merged_values(_defaults(teacher), texts))


def _defaults(teacher: RunSettings) -> dict[str, Any]:
    values: dict[str, Any] = teacher.model_dump(mode="json")
    stage: Mapping[str, Any] = values["image_stage"]
    return values | {
        "experts": {"default": "student"},
        "image_stage": {**stage, "enabled": False},
        "images": max(teacher.batch, teacher.images // SHARE),
        "stage_images": {},
        "max_steps": None,
    }
