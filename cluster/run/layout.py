"""The names of the files and folders that checkpoints and models consist of.

What people read in a run (metrics, samples, the report) is named in ``launch/run_folder``. Below a run::

    checkpoints/LATEST, BEST, LEASE
    checkpoints/<step>/<attempt>/manifest.json          names the other files; with it the folder is a checkpoint
    checkpoints/<step>/<attempt>/statistics.safetensors the statistics of the bands
    checkpoints/<step>/<attempt>/<stage>.generator.safetensors   averaged weights: what a picture needs
    checkpoints/<step>/<attempt>/<stage>.safetensors    the live state: what goes on with the training needs as well
    checkpoints/<step>/<attempt>/<stage>.json           counters
    checkpoints/rollback/<attempt>/<stage>.good-<step>.safetensors  the state that a stage goes back to
    components/shared.json                              of a run at a free pace: what its components have in common
    components/statistics-<sha256>.safetensors          the statistics of the bands, of all of them
    components/<name>/checkpoints/...                   those of one component; <name>/ is like a run of its own
    teacher/teacher.json                                of a run of students: where their teacher comes from
    teacher/statistics.safetensors, <stage>.generator.safetensors   what is needed of it

A state to go back to seldom changes: every checkpoint names the file, which is written once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
LATEST = "LATEST"
LEASE = "LEASE"
BEST = "BEST"
STATISTICS = "statistics.safetensors"
ROLLBACK = "rollback"
COMPONENTS = "components"
SHARED = "shared.json"
TEACHER = "teacher"
TEACHER_RECORD = "teacher.json"
CURRENT = "CURRENT"
VERSIONS = "versions"
VERSION_DIGITS = 6
"""Of the number of a version of a model, see :mod:`cluster.run.model_registry`."""

_ROLLBACK_FILE = re.compile(r"(.+)\.good-(\d+)\.safetensors")


def checkpoint_path(step: int, attempt: str, name: str = "") -> str:
    """Return the path of a checkpoint, or of a file of it, relative to the folder of checkpoints."""
    return f"{step:09d}/{attempt}/{name}".rstrip("/")


def component_run(run: str, component: str) -> str:
    """Return the folder, a path or URL as ``run`` is, of one component of a run at a free pace."""
    return f"{run.rstrip('/')}/{COMPONENTS}/{component}"


def whole_run(run: str, only: Sequence[str]) -> str:
    """Return the folder of the whole run, where ``run`` is that of the component whose stages are ``only``."""
    ending = f"/{COMPONENTS}/{only[0]}" if only else ""
    return run.removesuffix(ending) if ending and run.endswith(ending) else run


def averages_file(stage: str) -> str:
    """Return the file of the averaged weights of ``stage``."""
    return f"{stage}.generator.safetensors"


def state_file(stage: str) -> str:
    """Return the file of the live state of ``stage``; in checkpoints of format 1, of everything."""
    return f"{stage}.safetensors"


def counters_file(stage: str) -> str:
    """Return the file of the counters of ``stage``."""
    return f"{stage}.json"


def rollback_path(stage: str, good_step: int, attempt: str) -> str:
    """Return the path of the state of ``good_step`` that ``stage`` goes back to, below the folder of checkpoints."""
    return f"{ROLLBACK}/{attempt}/{stage}.good-{good_step:09d}.safetensors"


def parse_rollback_file(name: str) -> tuple[str, int] | None:
    """Return the stage and the step of a file of :func:`rollback_path`, by its name alone; None for any other file."""
    parts = _ROLLBACK_FILE.fullmatch(name.rpartition("/")[2])
    return None if parts is None else (parts[1], int(parts[2]))
