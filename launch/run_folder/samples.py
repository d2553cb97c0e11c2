"""A grid of pictures of every checkpoint, drawn beside the training: ``samples/<images seen>.png``."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from cluster.evaluation.background import BACKGROUND_NICENESS
from cluster.run.checkpoint import Checkpoint
from cluster.storage.folder import Folder
from freqgan.pixels import to_pixels
from launch.drawing.grids import encode_png, tile

SAMPLES = "samples"
SAMPLE_SEED = 0
SAMPLE_COUNT = 64


class SampleGrids:
    """Draws grids in a thread of its own, one after the other, by the averaged weights of the checkpoints.

    Args:
        folder: of the run.
        most_waiting: how many may still have to be drawn before the training waits for the oldest: a checkpoint that
            is deleted can no longer be drawn.

    """

    def __init__(self, folder: Folder, most_waiting: int) -> None:
        self._folder, self._most_waiting = folder, most_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="samples", initializer=step_aside)
        self._waiting: deque[Future[None]] = deque()

    def add(self, checkpoint: Checkpoint) -> None:
        """Have the grid of ``checkpoint`` drawn; raise what went wrong with an earlier one."""
        self._waiting.append(self._thread.submit(draw_samples, self._folder, checkpoint))
        while self._waiting and (len(self._waiting) > self._most_waiting or self._waiting[0].done()):
            self._waiting.popleft().result()

    def close(self) -> None:
        """Wait for all grids; raise what went wrong with any. Safe to call twice."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)


def step_aside() -> None:
    """Let all else go first where cores are few: on Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = max(os.getpriority(os.PRIO_PROCESS, thread), BACKGROUND_NICENESS)
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def draw_samples(folder: Folder, checkpoint: Checkpoint) -> None:
    """Write the grid of ``checkpoint`` into the folder of its run."""
    generated = checkpoint.synthesiser().sample(SAMPLE_SEED, SAMPLE_COUNT)
    grid = tile(to_pixels(generated.images).numpy())
    folder.write(f"{SAMPLES}/{checkpoint.images:09d}.png", encode_png(grid))
