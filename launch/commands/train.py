"""Training as a person starts it: progress, run folder and report around ``cluster.training.train.train``."""

from __future__ import annotations

import traceback
from contextlib import suppress

from cluster.run.checkpoints import has_checkpoints
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.training.train import train
from freqgan.errors import FreqganError
from launch.commands.free_training import end_with_supervisor, train_in_processes, train_in_turns
from launch.console.exit_codes import STOPPED_EXIT_CODE
from launch.console.progress import ProgressReporter
from launch.pages.report import write_report
from launch.run_folder.layout import TRACEBACK


def run_training(settings: RunSettings, address: str | None = None) -> int:
    """Train, keep the run folder, write the report; return the exit code, 0 or STOPPED_EXIT_CODE.

    Raises:
        FreqganError: as ``cluster.training.train.train``. Any other exception is recorded in the run folder first.

    """
    with ProgressReporter(settings) as reporter:
        try:
            if settings.pace == "free":
                return _train_free(settings, address, reporter)
            result = train(settings, reporter, address=address)
        except FreqganError:
            raise
        except Exception:
            with suppress(FreqganError):  # a disk that is full must not hide what happened
                open_folder(settings.run).write(TRACEBACK, traceback.format_exc().encode())
            raise
    _write_report(settings.run, reporter)
    if result.reason == "stopped":
        reporter.say(f"stopped after step {result.step}; the same command goes on from there")
        return STOPPED_EXIT_CODE
    return 0


def _write_report(run: str, reporter: ProgressReporter) -> None:
    try:
        reporter.say("writing the report: its samples are drawn first")
        reporter.say(f"report: {write_report(run, note=reporter.warn)}")
    except FreqganError as error:  # the training stands all the same, and a scheduler must hear so
        reporter.warn(f"no report was written: {error}")


def _train_free(settings: RunSettings, address: str | None, reporter: ProgressReporter) -> int:
    """Train components at their own pace; write the report of the whole model if all are trained from here."""
    end_with_supervisor()
    if settings.executor == "ray" and len(settings.by_component()) > 1:
        stopped = train_in_processes(settings, address, reporter)
    else:
        stopped = train_in_turns(settings, address, reporter).stopped
    if not settings.only and has_checkpoints(settings.run):
        _write_report(settings.run, reporter)
    if stopped:
        reporter.say("stopped; the same command goes on from there")
        return STOPPED_EXIT_CODE
    return 0
