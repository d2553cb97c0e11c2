"""Runs with all that people read in them but the report, which takes as long as a small training."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from cluster.training.train import train
from launch.commands.free_training import train_in_turns
from launch.console.progress import ProgressReporter
from launch.settings.load import load_settings


def train_with_folder(run: Path, shards: Path, *overrides: str) -> Path:
    """Train by the preset smoke, of either pace; its folder."""
    settings = load_settings("smoke", [f"data={shards}", f"run={run}", *overrides])
    with ProgressReporter(settings, Console(file=io.StringIO())) as reporter:
        if settings.pace == "free":
            train_in_turns(settings, None, reporter)
        else:
            train(settings, reporter)
    return run
