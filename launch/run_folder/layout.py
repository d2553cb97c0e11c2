"""The names of the files and folders that people read in a run, of those that are no logs of lines."""

from __future__ import annotations

CONFIG = "config.yaml"
TENSORBOARD = "tensorboard"
TRACEBACK = "error.txt"
"""Of an error that nobody foresaw; written by whoever catches it."""
SAMPLES = "samples"


def grid_name(images: int, kind: str = "png") -> str:
    """Return the file of the grid of samples of the checkpoint that has seen ``images`` images.

    ``kind`` is png, or webp for the animation that clips have beside it.
    """
    return f"{SAMPLES}/{images:09d}.{kind}"
