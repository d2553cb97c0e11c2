"""What a person finds in the run folder beside the checkpoints: settings, metrics, TensorBoard events, samples.

``config.yaml``, ``metrics.jsonl``, ``evaluations.jsonl``, ``failures.jsonl``, ``tensorboard/``, ``samples/``. For
a run in a bucket all but the samples grow in a local staging folder that is uploaded at every checkpoint and at
the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from cluster.evaluation.background import Evaluation
from cluster.execution.callbacks import StepRecord
from cluster.execution.coordinator import BEGUN
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint import Checkpoint
from cluster.run.settings import RunSettings
from cluster.storage.errors import disk_errors
from cluster.storage.folder import open_folder
from launch.run_folder.evaluations import EVALUATIONS, EvaluationLog
from launch.run_folder.event_log import EventLog
from launch.run_folder.failures import FAILURES, FailureLog
from launch.run_folder.layout import CONFIG, TENSORBOARD, TRACEBACK
from launch.run_folder.metrics import METRICS, MetricsLog
from launch.run_folder.samples import SampleGrids
from launch.run_folder.trackers import Trackers
from launch.settings.load import dump_settings


class RunFolder:
    """Keeps the run folder of one training; :meth:`close` it at the end.

    Args:
        settings: of the run; ``settings.run`` is the folder.
        first_step: finished steps so far; what the folder says about later ones is removed.
        note: is told of grids of samples that are not drawn.

    """

    def __init__(self, settings: RunSettings, first_step: int, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder = open_folder(settings.run)
        with disk_errors(f"write to {tempfile.gettempdir()}"):
            self._staging = None if self.folder.is_local else tempfile.TemporaryDirectory(prefix="freqgan-run-")
        self.local = Path(self._staging.name if self._staging else self.folder.url)
        self._uploaded_bytes: dict[str, int] = {}
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="run folder")
        self._upload: Future[None] | None = None
        for name in (METRICS, EVALUATIONS, FAILURES) if self._staging else ():
            if self.folder.exists(name):
                self.folder.download(name, self.local / name)
        self.folder.delete(TRACEBACK)  # of a start before this one
        if not settings.only:  # a component is trained by the settings of the whole run
            self.folder.write(CONFIG, dump_settings(settings).encode())
        self._metrics = MetricsLog(self.local / METRICS, first_step)
        self._evaluations = EvaluationLog(self.local / EVALUATIONS, first_step)
        self._failures = FailureLog(self.local / FAILURES)
        self._events = EventLog(self.local / TENSORBOARD, first_step + 1)
        self._trackers = Trackers(settings, self.folder, str(self.local), note)
        self._samples = None if settings.only else SampleGrids(self.folder, settings.keep_checkpoints - 1, note)
        if self._samples is not None and first_step:
            self._samples.add_missing(first_step, first_step * settings.batch)

    def record(self, record: StepRecord) -> None:
        """Write a line of metrics and one TensorBoard event with all numbers of a step."""
        self._metrics.append(record)
        scalars = {
            f"{key}/{name}": x for name, numbers in record.stages.items() for key, x in numbers.items() if key != BEGUN
        }
        scalars["speed/images_per_s"] = record.images_per_s
        self._events.add(scalars, record.step)
        self._trackers.add(scalars, record.step)

    def save(self, checkpoint: Checkpoint) -> None:
        """Bring the folder up to date with a checkpoint, whose sample grid is drawn beside the training.

        One component of a model has nothing to draw. What is uploaded is so beside the training; what comes while
        an upload takes longer goes with the next one.
        """
        if self._samples is not None:
            self._samples.add(checkpoint)
        self._events.flush()
        if self._upload is not None and self._upload.done():
            self._upload.result()
            self._upload = None
        if self._staging and self._upload is None:
            self._upload = self._uploader.submit(self._upload_all)

    def evaluate(self, evaluation: Evaluation) -> None:
        """Write a line of scores, and the same as TensorBoard events."""
        self._evaluations.append(evaluation)
        values = {name: score["value"] for name, score in evaluation.scores.items()} | (
            {"fit": evaluation.fit} if evaluation.has_pictures else {}
        )
        scalars = {f"evaluation/{name}": value for name, value in values.items() if value is not None}
        self._events.add(scalars, evaluation.step)
        self._trackers.add(scalars, evaluation.step)

    def record_recovery(self, recovery: Recovery) -> None:
        """A line of what went wrong and what was done."""
        self._failures.append(recovery)

    def flush(self) -> None:
        """Bring everything recorded so far into the folder."""
        self._events.flush()
        if self._staging:
            self._uploader.submit(self._upload_all).result()  # after the one that is under way

    def close(self) -> None:
        """Flush and let go of files and staging."""
        with ExitStack() as closing:
            if self._staging:
                closing.callback(self._staging.cleanup)
            closing.callback(self._events.close)
            for log in (self._metrics, self._evaluations, self._failures):
                closing.callback(log.close)
            if self._samples is not None:
                closing.callback(self._samples.close)
            closing.callback(self._uploader.shutdown)
            self._trackers.close()  # files of theirs are uploaded too
            self.flush()

    def _upload_all(self) -> None:
        for path in sorted(p for p in self.local.rglob("*") if p.is_file()):
            self._upload_grown(path)

    def _upload_grown(self, path: Path) -> None:
        name, size_bytes = path.relative_to(self.local).as_posix(), path.stat().st_size
        if self._uploaded_bytes.get(name) != size_bytes:  # these files only grow
            self.folder.upload(path, name)
            self._uploaded_bytes[name] = size_bytes
