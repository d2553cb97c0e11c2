"""``freqgan submit``: a training as a job of a Ray cluster somewhere else, followed to its end."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from cluster.ray_engine.jobs import Job, Jobs
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from launch.console.exit_codes import STOPPED_EXIT_CODE
from launch.settings.load import dump_settings

SETTINGS = "settings.yaml"
PACKAGES = ("freqgan", "cluster", "launch")
FAILED_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 130
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")


def submit(
    settings: RunSettings,
    *,
    address: str,
    follow: bool,
    installed: bool,
    variables: Sequence[str],
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> int:
    """Submit the training of ``settings``; with ``follow`` print its log and return its own exit code.

    Args:
        settings: of the run; its folders are those that the cluster sees.
        address: of the cluster's dashboard.
        follow: wait for the end.
        installed: use the freqgan that the cluster has, in place of a copy of this one.
        variables: names of variables of this environment that the job gets; Ray shows their values to who may see jobs.
        say: told what a person waits for.
        note: told what should be looked at.

    Raises:
        InputError: no such cluster, a wrong token, a variable that is not set.

    """
    env = {name: _variable(name) for name in variables}
    base = settings.conditioning.run
    for key, url in (("run", settings.run), ("data", settings.data), *([("conditioning.run", base)] if base else [])):
        if "://" not in url and not Path(url).is_absolute():
            raise InputError(f"{key}={url}: a job runs elsewhere; give an absolute path that it sees there, or s3://")
        if "://" not in url:
            others = "; the jobs of its other stages must see it too" if settings.only and key == "run" else ""
            note(f"{key}={url} is a path on the machine where the job's driver runs{others}")
    jobs, name = Jobs(address), job_name(settings)
    with tempfile.TemporaryDirectory(prefix="freqgan-submit-") as folder:
        pack_job(Path(folder), settings, installed=installed)
        entrypoint = shlex.join(["python", "-m", "launch", "train", SETTINGS])
        job = jobs.submit(entrypoint, Path(folder), name, env, settings.run, settings.only)
    say(f"submitted {job} to {address}")
    if not follow:
        say(f"freqgan status {address} tells how it is doing; submitting the same run again goes on with it")
        return 0
    return _followed(jobs, job, say)


def job_name(settings: RunSettings) -> str:
    """Return a name for a job that no other has, even of the same run; it has the run in it, and an island's stages."""
    parts = [_words(settings.run)[-40:], _words("-".join(settings.only))[:40], uuid.uuid4().hex[:8]]
    return "-".join(["freqgan", *(part.strip("-") for part in parts if part)])


def _words(text: str) -> str:
    return _NOT_IN_NAMES.sub("-", text).strip("-")


def pack_job(folder: Path, settings: RunSettings, *, installed: bool) -> None:
    """Return what the job needs besides what is installed on the cluster: the settings, and this program's own code.

    Data, runs, tests and whatever else lies beside it stay here.
    """
    (folder / SETTINGS).write_text(dump_settings(settings), "utf-8")
    root = Path(__file__).parents[2]
    for package in PACKAGES if not installed else ():
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _followed(jobs: Jobs, name: str, say: Callable[[str], None]) -> int:
    while True:
        try:
            return _exit_code(jobs.follow(name, _write), say)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                say(f"{name} goes on; `freqgan status {jobs.address}` tells how it is doing")
                return INTERRUPTED_EXIT_CODE
            if typer.confirm(f"\nstop {name} (it saves a checkpoint first)?", default=False):
                jobs.stop(name)
                continue
            say(f"{name} goes on")
            return INTERRUPTED_EXIT_CODE


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _exit_code(job: Job, say: Callable[[str], None]) -> int:
    """Return the exit code of the driver; a job that was stopped asks to be run again, whatever Ray calls it."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        say(f"{job.name} was stopped; submitting the same run again goes on from its last checkpoint")
        return STOPPED_EXIT_CODE
    code = FAILED_EXIT_CODE if job.exit_code is None or job.exit_code <= 0 else job.exit_code
    why = job.message.partition(", last available logs")[0].partition("\n")[0]
    say(f"{job.name} ended with exit code {code}" + (f": {why}" if why else ""))
    return code


def _variable(name: str) -> str:
    if name not in os.environ:
        raise InputError(f"--env {name}: this environment has no such variable; set it, or leave it out")
    value = os.environ[name]
    if value.encode(errors="replace").decode() != value:
        raise InputError(f"--env {name}: its value is not UTF-8; set it anew, or leave it out")
    return value
