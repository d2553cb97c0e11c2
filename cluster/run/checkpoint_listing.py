"""Which checkpoints a folder holds, by the names in it and by LATEST and BEST; nothing of torch is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cluster.run.layout import BEST, LATEST, MANIFEST, checkpoint_path
from cluster.storage.folder import Folder
from freqgan.errors import FreqganError
from freqgan.metrics.catalogue import Yardstick


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint that was scored best: its step, its fit, and what that was measured by."""

    step: int
    fit: float
    yardstick: Yardstick = "bands"


def best_checkpoint(root: Folder) -> BestCheckpoint | None:
    """Return the checkpoint that was scored best, where any was."""
    try:
        pointer = json.loads(root.read(BEST)) if root.exists(BEST) else None
        if pointer is None:
            return None
        yardstick: Yardstick = "learned" if pointer.get("yardstick") == "learned" else "bands"
        return BestCheckpoint(int(pointer["step"]), float(pointer["fit"]), yardstick)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def candidates(root: Folder, names: Iterable[str]) -> list[tuple[int, str]]:
    """(step, attempt) from the newest; of one step, the attempt that LATEST names first.

    Left out are steps that a process committed after another had taken the run over from an earlier one. ``names``
    are those of all objects below ``root``.
    """
    try:
        pointer = json.loads(root.read(LATEST)) if root.exists(LATEST) else {}
        preferred = (pointer.get("step"), pointer.get("attempt"))
        epoch, first_step = int(pointer.get("epoch", 0)), int(pointer.get("first_step", 0))
    except (ValueError, AttributeError, TypeError):
        preferred, epoch, first_step = (None, None), 0, 0
    found = sorted(committed_among(names), key=lambda c: (c[0], c == preferred), reverse=True)
    return [c for c in found if c[0] <= first_step or c == preferred or not _is_fenced(root, *c, epoch)]


def _is_fenced(root: Folder, step: int, attempt: str, epoch: int) -> bool:
    """Return whether the manifest says that its writer's lease came before ``epoch``."""
    if epoch <= 1:
        return False
    try:
        return int(json.loads(root.read(checkpoint_path(step, attempt, MANIFEST))).get("epoch", 0)) < epoch
    except (FreqganError, ValueError, AttributeError, TypeError):
        return False  # whoever reads it says what is wrong with it


def committed_among(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(step, attempt) of every manifest among ``names``, of objects below the folder of checkpoints."""
    return ((int(step), attempt) for step, attempt in attempts_among(names, MANIFEST))


def attempts_among(names: Iterable[str], having: str | None = None) -> Iterator[tuple[str, str]]:
    """(folder of a step, attempt) of the objects ``names``, or of those called ``having`` alone."""
    for name in names:
        step, *rest = name.split("/")
        if len(rest) == 2 and step.isdecimal() and having in (None, rest[1]):
            yield step, rest[0]
