"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from cluster.data.quarantine import QuarantinedImage
from cluster.evaluation.background import Evaluation
from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint import Checkpoint
from cluster.run.settings import RunSettings
from freqgan.errors import FreqganError
from freqgan.tensor_dicts import Metrics
from launch.console.tables import plain_console
from launch.console.text import duration_text, images_text
from launch.run_folder.failures import recovery_text
from launch.run_folder.folder import RunFolder
from launch.run_folder.metrics import ALPHA, LAMBDA, blend_share

LINE_EVERY_S = 10.0
LINE_EVERY_STEPS = 50
STEADY_STEPS = 5
"""Steps of this process after which their speed says something: the first ones wait for everything to start."""


class ProgressReporter:
    """A ``Reporter`` that shows progress and keeps the run folder; use it in ``with``.

    Args:
        settings: of the run.
        console: where to; stderr where not given, so that stdout is left to results.
        component: its name, where it is one of several that train at their own pace: it is in every line.

    """

    def __init__(self, settings: RunSettings, console: Console | None = None, component: str = "") -> None:
        self.settings, self.component = settings, component
        self.console = console or plain_console(stderr=True, soft_wrap=True)
        self._folder: RunFolder | None = None
        self._live: LiveProgress | None = None
        self._first_step, self._line_step, self._line_s = 0, 0, 0.0
        self._left_out = 0

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FreqganError:
            if error is None:  # else it is that which must be told, and closing fails for the same reason
                raise

    def close(self) -> None:
        """Close the bar and the run folder; safe to call twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def say(self, text: str) -> None:
        """Print one line for the user."""
        self.console.print(Text(self._prefix + text))

    def warn(self, text: str) -> None:
        """Print one line that must not be overlooked."""
        self.console.print(Text.assemble(self._prefix, ("note:", "yellow"), " ", text))

    @property
    def _prefix(self) -> str:
        return f"{self.component}: " if self.component else ""

    # -- Reporter ------------------------------------------------------------------------------

    def on_prepare(self, text: str) -> None:
        """Print what is prepared."""
        self.say(text)

    def on_start(self, first_step: int, notes: list[str]) -> None:
        """Show the notes and open the run folder; anew where all stages begin again at a checkpoint."""
        self.close()
        for note in notes:
            self.warn(note)
        self._folder = RunFolder(self.settings, first_step, self.warn)
        self._first_step, self._line_step, self._line_s = first_step, first_step, time.monotonic()
        if self.console.is_terminal and self.settings.pace == "together":  # else there are several, with lines each
            self._live = LiveProgress(self.settings, self.console, first_step)
        self.say(f"training {self.settings.run}: step {first_step} of {self.settings.last_step}")

    def on_step(self, record: StepRecord) -> None:
        """Record the step; move the bar, or print a line now and then."""
        if self._folder is not None:
            self._folder.record(record)
        if self._live is not None:
            self._live.show(record)
        elif self._line_is_due(record.step):
            self._line_step, self._line_s = record.step, time.monotonic()
            self.say(f"{self._position(record)} | {losses_text(record)}")

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write samples of the checkpoint, and bring the folder up to date."""
        if self._folder is not None:
            self._folder.save(checkpoint)
        if self._live is None:
            self.say(f"checkpoint of step {checkpoint.step}")

    def on_evaluation(self, evaluation: Evaluation, *, best: bool) -> None:
        """Record the scores, and say how good they are."""
        if self._folder is not None:
            self._folder.evaluate(evaluation)
        if evaluation.validation:
            losses = ", ".join(f"{name} {loss:.4f}" for name, loss in evaluation.validation.items())
            self.say(f"losses on held-out images at step {evaluation.step}: {losses}")
        if not evaluation.has_pictures:
            return
        mark = ", the best so far" if best else ""
        by = " by learned features" if evaluation.yardstick == "learned" else ""
        self.say(f"scores of step {evaluation.step}: {evaluation.fit:.1f} times the distance of real images{by}{mark}")
        if evaluation.collapse:
            self.warn(f"collapse at step {evaluation.step}: {evaluation.collapse}")

    def on_recovery(self, recovery: Recovery) -> None:
        """Record the failure, and say what was done."""
        if self._folder is not None:
            self._folder.record_recovery(recovery)
        self.warn(recovery_text(recovery))

    def on_quarantine(self, image: QuarantinedImage, count: int) -> None:
        """Print the damaged images; from then on their count is shown beside the progress."""
        self._left_out = count
        if self._live is not None:
            self._live.left_out = count
        what = "left out from here on" if image.member else "all of its images are whole, and used"
        self.warn(f"{image.reason}; {what}. That is damage {count} of at most {self.settings.max_damaged}")

    def on_note(self, text: str) -> None:
        """Say it."""
        self.warn(text)

    def on_end(self, step: int, reason: str) -> None:
        """Close the bar and the run folder."""
        self.close()
        self.say(
            f"{reason} at step {step} of {self.settings.last_step}, {images_text(step * self.settings.batch)} seen"
        )

    # -- plain lines ---------------------------------------------------------------------------

    def _line_is_due(self, step: int) -> bool:
        late = time.monotonic() - self._line_s >= LINE_EVERY_S
        return late or step - self._line_step >= LINE_EVERY_STEPS or step == self.settings.last_step

    def _position(self, record: StepRecord) -> str:
        left = left_text(record, self.settings, self._first_step)
        share = blend_share(record.stages)
        blend = "" if share is None else f", {_share_name(self.settings)} {share:.3f}"
        rate = f"{record.images_per_s:.1f} images/s"
        damaged = f", {self._left_out} damaged" if self._left_out else ""
        return f"step {record.step}/{self.settings.last_step}, {rate}{left and f', {left}'}{blend}{damaged}"


def _share_name(settings: RunSettings) -> str:
    """Return what the share of the bands in the images is called."""
    return LAMBDA if settings.system == "fusion" else ALPHA


class LiveProgress:
    """The bar and, below it, the losses of every stage; redrawn in place."""

    def __init__(self, settings: RunSettings, console: Console, first_step: int) -> None:
        self.settings, self.first_step = settings, first_step
        self.left_out = 0
        columns: tuple[Any, ...] = (
            BarColumn(bar_width=None),  # what the other columns leave of the terminal's width
            TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
            TextColumn("{task.fields[rate]:.1f} images/s"),
            *([TextColumn(f"{_share_name(settings)} {{task.fields[share]}}")] if settings.image_stage.enabled else []),
            TextColumn("{task.fields[damaged]}"),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=console, expand=True)
        total, done = settings.last_step * settings.batch, first_step * settings.batch
        self.task: TaskID = self.bar.add_task("", total=total, completed=done, rate=0.0, share="-", damaged="", left="")
        self._live = Live(self.bar, console=console, refresh_per_second=4)
        self._live.start()

    def show(self, record: StepRecord) -> None:
        """Move the bar to ``record``."""
        share = blend_share(record.stages)
        blend = "-" if share is None else f"{share:.3f}"
        damaged = f"{self.left_out} damaged" if self.left_out else ""
        left = left_text(record, self.settings, self.first_step)
        rate = record.images_per_s
        self.bar.update(self.task, completed=record.images, rate=rate, share=blend, damaged=damaged, left=left)
        losses = [Text(item, style="dim") for item in losses_text(record).split("  ")]
        self._live.update(Group(self.bar, Columns(losses, padding=(0, 2))))

    def stop(self) -> None:
        """Leave the last state on the terminal."""
        self._live.stop()


def left_text(record: StepRecord, settings: RunSettings, first_step: int) -> str:
    """Return the time to the last step at the speed of the latest ones, "3 min 20 s left".

    It is "" until that speed is steady.
    """
    if record.step - first_step < STEADY_STEPS:
        return ""
    left_s = (settings.last_step - record.step) * settings.batch / max(record.images_per_s, 1e-9)
    return f"{duration_text(left_s)} left"


def losses_text(record: StepRecord) -> str:
    """Return "<name> <loss of D>/<loss of G>" per GAN and "<name> <loss>" per flow expert, two spaces apart.

    The loss of a companion that has one of its own follows that of the image stage.
    """
    parts = [(name, _loss_text(numbers)) for name, numbers in record.stages.items()]
    return "  ".join(f"{name} {text}" for name, text in parts if text)


def _loss_text(numbers: Metrics) -> str:
    both = f"{numbers['loss_d']:.2f}/{numbers['loss_g']:.2f}" if {"loss_d", "loss_g"} <= numbers.keys() else ""
    own = [f"{numbers[key]:.3f}" for key in ("loss", "companion_loss") if key in numbers]
    return " ".join(filter(None, [both, *own]))
