"""Finding the checkpoints of a run or of a model, and the newest one in which nothing is damaged.

Looking a checkpoint up reads manifests and lists the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from cluster.run.checkpoint import Checkpoint, Found, UnusableError, check_sizes, read_manifest
from cluster.run.checkpoint_listing import BestCheckpoint, best_checkpoint, candidates, committed_among
from cluster.run.exported_model import find_exported
from cluster.run.free_run import Choice, find_free_run
from cluster.run.layout import (
    CHECKPOINTS,
    CURRENT,
    VERSION_DIGITS,
    VERSIONS,
)
from cluster.storage.checksummed_files import DamagedFileError
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError


def find_checkpoint(
    run: str, *, step: int | None = None, best: bool = False, at_images: int | None = None
) -> Checkpoint:
    """Return the newest checkpoint of ``run`` whose manifest can be read and whose files have the recorded sizes.

    Nothing else of it is read; see :func:`open_checkpoint` for the arguments and errors.
    """
    return open_checkpoint(run, lambda checkpoint: checkpoint, step=step, best=best, at_images=at_images)


def open_checkpoint(
    run: str,
    read: Callable[[Checkpoint], Found],
    *,
    step: int | None = None,
    best: bool = False,
    at_images: int | None = None,
    damaged: Mapping[tuple[int, str], str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Found:
    """Return what ``read`` makes of the newest checkpoint of ``run`` in which it meets no damage.

    Of a run at a free pace that is the newest one of every component, in one.

    Args:
        run: the folder of a run; of the folder of a model it is that of the version in use.
        read: reads what is needed. The ``notes`` of the checkpoint it gets say which ones were passed over, and why.
        step: asks for the checkpoint of that step alone.
        best: asks for the checkpoint that was scored best.
        at_images: asks for the newest checkpoint that has seen no more than so many images.
        damaged: checkpoints to pass over, as {(step, attempt): what is wrong with it}.
        note: gets the ``notes`` of the checkpoint that is opened.

    Raises:
        InputError: the run has no such checkpoint, or none that can be used.

    """
    if (free := find_free_run(run)) is not None:
        _check_best(free.folder, run, best=best)
        return free.open(read, Choice(at_images, step, best), note)
    root = checkpoints_of(run)
    marked = _check_best(root, run, best=best)
    step = marked.step if marked is not None else step
    notes: list[str] = []
    sizes = root.sizes()
    if not sizes and (exported := find_exported(run)) is not None:
        if step is not None or at_images is not None:
            raise InputError(f"{run} is an exported model, of one checkpoint: leave out which one is to be used")
        return read(exported)
    for candidate in candidates(root, sizes):
        if step is not None and candidate[0] != step:
            continue
        try:
            if damaged and candidate in damaged:
                raise UnusableError(damaged[candidate])
            checkpoint = read_manifest(root, *candidate)
            if at_images is not None and checkpoint.images > at_images:
                continue
            check_sizes(checkpoint, sizes)
            checkpoint.notes = list(notes)
            result = read(checkpoint)
        except (DamagedFileError, UnusableError) as error:
            notes.append(f"checkpoint of step {candidate[0]} passed over: {error}")
            continue
        for text in notes:
            note(text)
        return result
    raise _no_checkpoint(run, notes, step, at_images, sizes)


def _check_best(root: Folder, run: str, *, best: bool) -> BestCheckpoint | None:
    """Return the mark of the best checkpoint if that is asked for; InputError where there is none."""
    marked = best_checkpoint(root) if best else None
    if best and marked is None:
        raise InputError(f"{run} has no best checkpoint: train with watch.data=SHARDS to have checkpoints scored")
    return marked


def _no_checkpoint(
    run: str, notes: list[str], step: int | None, at_images: int | None, sizes: Mapping[str, int]
) -> InputError:
    """Return the error that says why no checkpoint of ``run`` can be opened."""
    if notes:
        return InputError("no checkpoint can be used; " + "; ".join(notes) + "; give another run folder")
    there = sorted({number for number, _ in committed_among(sizes)})
    if step is not None:
        return InputError(f"{run} holds no checkpoint of step {step}; there are {there}")
    if at_images is not None and there:
        return InputError(f"{run} holds no checkpoint of at most {at_images:,} images; there are steps {there}")
    fault = "holds no checkpoint" if open_folder(run).is_there() else "is not there"
    return InputError(f"{run} {fault}: name the run folder of a training that has saved a checkpoint")


def has_checkpoints(run: str) -> bool:
    """Return whether ``run``, or the version in use of a model, holds a committed checkpoint, sound or not.

    Of a run at a free pace every component must have one.
    """
    if (free := find_free_run(run)) is not None:
        return None not in free.newest_images().values()
    return any(True for _ in committed_among(checkpoints_of(run).list()))


def checkpoints_of(run: str) -> Folder:
    """Return the folder of the checkpoints of a run, or of the version in use of a model."""
    return (_version_in_use(run) or open_folder(run)).child(CHECKPOINTS)


def _version_in_use(run: str) -> Folder | None:
    """Return where CURRENT leads, in the folder of a model."""
    stored = open_folder(run).read_tagged(CURRENT)
    if stored is None:
        return None
    try:
        return open_folder(run).child(VERSIONS, f"{int(json.loads(stored[0])['version']):0{VERSION_DIGITS}d}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}/{CURRENT} is damaged ({error}): name a version below {run}/{VERSIONS}") from error
