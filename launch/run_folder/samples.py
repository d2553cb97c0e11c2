"""A grid of pictures of every checkpoint, drawn beside the training: ``samples/<images seen>.png``.

Clips have an animation of the same clips beside it, ``.webp``; the picture is of the frame in the middle.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from cluster.evaluation.background import BACKGROUND_NICENESS
from cluster.imaging.pictures import encode_png
from cluster.imaging.shown_images import shown_images
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import BaseError, synthesiser_of
from cluster.storage.folder import Folder
from freqgan.errors import FreqganError
from launch.drawing.grids import tile
from launch.drawing.playing import animated_grid, clip_count, middle_grid
from launch.run_folder.layout import grid_name

SAMPLE_SEED = 0
SAMPLE_COUNT = 64


class SampleGrids:
    """Draws grids in a thread of its own, one after the other, by the averaged weights of the checkpoints.

    Args:
        folder: of the run.
        most_waiting: how many may still have to be drawn before the training waits for the oldest: a checkpoint that
            is deleted can no longer be drawn.
        note: is told of a grid that is not drawn, because the model whose images this one is shown is gone: training
            goes on without it.

    """

    def __init__(self, folder: Folder, most_waiting: int, note: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._most_waiting, self._note = folder, most_waiting, note
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="samples", initializer=step_aside)
        self._waiting: deque[Future[None]] = deque()

    def add(self, checkpoint: Checkpoint) -> None:
        """Have the grid of ``checkpoint`` drawn; raise what went wrong with an earlier one."""
        self._waiting.append(self._thread.submit(self._draw, checkpoint))
        while self._waiting and (len(self._waiting) > self._most_waiting or self._waiting[0].done()):
            self._waiting.popleft().result()

    def add_missing(self, step: int, images: int) -> None:
        """Have the grid of the checkpoint that a training resumes at drawn, where the one before could not.

        A process may die after a checkpoint is committed and before its grid is drawn.
        """
        if not self._folder.exists(grid_name(images)):
            self._waiting.append(self._thread.submit(draw_missing_samples, self._folder, step))

    def _draw(self, checkpoint: Checkpoint) -> None:
        try:
            draw_samples(self._folder, checkpoint)
        except BaseError as error:
            self._note(f"the grid of step {checkpoint.step} was not drawn: {error}")

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
    """Write the grid of ``checkpoint`` into the folder of its run.

    The picture comes last: where it is, the animation is.
    """
    settings, model = checkpoint.settings, synthesiser_of(checkpoint)
    if settings.frames == 1:
        grid = tile(shown_images(model.sample(SAMPLE_SEED, SAMPLE_COUNT).images, settings))
    else:
        images = model.sample(SAMPLE_SEED, clip_count(settings)).images
        folder.write(grid_name(checkpoint.images, "webp"), animated_grid(images, settings))
        grid = middle_grid(images, settings)
    folder.write(grid_name(checkpoint.images), encode_png(grid))


def draw_missing_samples(folder: Folder, step: int) -> None:
    """Write the grid of the checkpoint of ``step``; none where it cannot be read, which is no reason to stop."""
    with suppress(FreqganError):
        draw_samples(folder, find_checkpoint(folder.url, step=step))
