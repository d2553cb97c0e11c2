"""The names of the files and folders that people read in a run, of those that are no logs of lines."""

from __future__ import annotations

CONFIG = "config.yaml"
TENSORBOARD = "tensorboard"
TRACEBACK = "error.txt"
"""Of an error that nobody foresaw; written by whoever catches it."""
SAMPLES = "samples"


def grid_name(images: int) -> str:
    """Return the file of the grid of samples of the checkpoint that has seen ``images`` images."""
    return f"{SAMPLES}/{images:09d}.png"
