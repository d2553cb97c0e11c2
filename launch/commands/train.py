"""Training as a person starts it: progress, run folder and report around ``cluster.training.train.train``."""

from __future__ import annotations

import traceback
from contextlib import suppress

from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.training.train import train
from freqgan.errors import FreqganError
from launch.console.exits import STOPPED_EXIT_CODE
from launch.console.progress import ProgressReporter
from launch.pages.report import write_report
from launch.run_folder.folder import TRACEBACK


def run_training(settings: RunSettings, address: str | None = None) -> int:
    """Train, keep the run folder, write the report; return the exit code, 0 or STOPPED_EXIT_CODE.

    Raises:
        FreqganError: as ``cluster.training.train.train``. Any other exception is recorded in the run folder first.

    """
    with ProgressReporter(settings) as reporter:
        try:
            result = train(settings, reporter, address=address)
        except FreqganError:
            raise
        except Exception:
            with suppress(FreqganError):  # a disk that is full must not hide what happened
                open_folder(settings.run).write(TRACEBACK, traceback.format_exc().encode())
            raise
    try:
        reporter.say(f"report: {write_report(settings.run, note=reporter.warn)}")
    except FreqganError as error:  # the training stands all the same, and a scheduler must hear so
        reporter.warn(f"no report was written: {error}")
    if result.reason == "stopped":
        reporter.say(f"stopped after step {result.step}; the same command goes on from there")
        return STOPPED_EXIT_CODE
    return 0
