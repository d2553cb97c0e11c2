"""Numbers of a training for experiment trackers, MLflow and Weights & Biases, beside the run folder's own.

They are sent from a thread of their own, and a training neither waits nor fails for them: what a tracker does not take
is told once, and from then on it gets nothing.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from cluster.run.layout import COMPONENTS
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder
from freqgan.errors import first_line

FILE = "tracking.json"
"""In the run folder: the names that trackers gave this run, so that a training that goes on is not another one."""
MOST_WAITING = 10_000
CLOSING_S = 20.0
"""Seconds that the end of a training waits for a tracker."""
MOST_AT_ONCE = 500
"""Numbers in one message; MLflow takes 1,000."""
PARAMETER_LENGTH = 500
PLACES: dict[str, Any] = {
    **dict.fromkeys(("run", "data", "tracking", "machines"), True), "watch": {"data"},
    "conditioning": {"run", "network"}, "image_stage": {"feature_matching": {"network"}},
}  # fmt: skip
"""Settings that say where something is, which is nobody else's business."""

Scalars = Mapping[str, float]


class Tracker(Protocol):
    """What takes the numbers of one run; its calls come from one thread."""

    def log(self, scalars: Scalars, step: int, time_s: float) -> None:
        """Take finite numbers of a step, at this time of the epoch in seconds."""

    def finish(self) -> None:
        """Send the rest."""


class MlflowTracker:
    """A run of MLflow, in the experiment ``tracking.experiment``."""

    def __init__(self, settings: RunSettings, name: str, known: str | None) -> None:
        """Go on with the run ``known``, or begin one with this ``name``."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is left to results
        entities, tracking = (importlib.import_module(f"mlflow.{part}") for part in ("entities", "tracking"))
        self._metric = entities.Metric
        self._client = tracking.MlflowClient(tracking_uri=settings.tracking.mlflow)
        self.id = known if known is not None else self._begin(settings, name, entities.Param)
        self._client.set_terminated(self.id, "RUNNING")

    def _begin(self, settings: RunSettings, name: str, param: Any) -> str:
        experiment = self._client.get_experiment_by_name(settings.tracking.experiment)
        number = (
            self._client.create_experiment(settings.tracking.experiment) if experiment is None
            else experiment.experiment_id
        )  # fmt: skip
        run: str = self._client.create_run(number, run_name=name).info.run_id
        pairs = [(key, text[:PARAMETER_LENGTH]) for key, text in flat_settings(settings).items() if text]
        for first in range(0, len(pairs), 100):
            self._client.log_batch(run, params=[param(*pair) for pair in pairs[first : first + 100]])
        return run

    def log(self, scalars: Scalars, step: int, time_s: float) -> None:
        """Take numbers of a step."""
        metrics = [self._metric(key, value, int(time_s * 1000), step) for key, value in scalars.items()]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self.id, metrics=metrics[first : first + MOST_AT_ONCE])

    def finish(self) -> None:
        """Say that the process ended."""
        self._client.set_terminated(self.id)


class WandbTracker:
    """A run of Weights & Biases, in the project ``tracking.wandb``; WANDB_MODE=offline keeps it in files."""

    def __init__(self, settings: RunSettings, name: str, known: str | None, folder: str) -> None:
        """Go on with the run ``known``, or begin one with this ``name``; its files are in ``folder``."""
        wandb = importlib.import_module("wandb")
        self.id = known or uuid.uuid4().hex[:8]
        options = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, init_timeout=30)
        self._run = wandb.init(
            project=settings.tracking.wandb, id=self.id, name=name, resume="allow", dir=folder, settings=options,
            config=flat_settings(settings), reinit="create_new",
        )  # fmt: skip

    def log(self, scalars: Scalars, step: int, time_s: float) -> None:
        """Take numbers of a step."""
        self._run.log(dict(scalars), step=step)

    def finish(self) -> None:
        """Send the rest."""
        self._run.finish()


def flat_settings(settings: RunSettings) -> dict[str, str]:
    """Return all settings by dotted key, as text, but for where things are."""
    values = settings.model_dump(mode="json", exclude=PLACES)
    out: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            out[prefix] = value if isinstance(value, str) else json.dumps(value)

    add("", values)
    return out


def run_name(url: str) -> str:
    """Return what people call the run in the folder ``url``; of a part of one that is <run>/<part>."""
    parts = url.rstrip("/").split("/")
    return f"{parts[-3]}/{parts[-1]}" if parts[-2:-1] == [COMPONENTS] and len(parts) > 2 else parts[-1]


class Trackers:
    """The trackers of one training; :meth:`close` them at its end.

    Args:
        settings: of the run.
        folder: of the run, for what trackers call it.
        local: a folder of this machine, for files of theirs.
        note: is told, once for each, that one gets no more.

    """

    def __init__(self, settings: RunSettings, folder: Folder, local: str, note: Callable[[str], None]) -> None:
        self._settings, self._folder, self._local, self._note = settings, folder, local, note
        self._waiting: queue.Queue[tuple[dict[str, float], int, float] | None] = queue.Queue(MOST_WAITING)
        wanted = {"mlflow": settings.tracking.mlflow, "wandb": settings.tracking.wandb}
        self._wanted = [name for name, value in wanted.items() if value]
        self._thread = threading.Thread(target=self._send, name="experiment trackers", daemon=True)
        if self._wanted:
            self._thread.start()

    def add(self, scalars: Scalars, step: int) -> None:
        """Have the numbers of a step sent, those that are finite; what more than 10,000 steps wait for is left out."""
        if self._wanted and self._thread.is_alive():
            finite = {key: float(value) for key, value in scalars.items() if math.isfinite(value)}
            with suppress(queue.Full):
                self._waiting.put_nowait((finite, step, time.time()))

    def close(self) -> None:
        """Wait some seconds for what is not sent yet."""
        if self._wanted and self._thread.is_alive():
            with suppress(queue.Full):
                self._waiting.put(None, timeout=1)
            self._thread.join(CLOSING_S)
            if self._thread.is_alive():
                self._note(f"tracking: {', '.join(self._wanted)} had not taken all numbers after {CLOSING_S:.0f} s")

    # -- on the thread -----------------------------------------------------------------------

    def _send(self) -> None:
        trackers = {name: tracker for name in self._wanted if (tracker := self._opened(name)) is not None}
        while trackers and (item := self._waiting.get()) is not None:
            self._each(trackers, lambda tracker, item=item: tracker.log(*item))  # type: ignore[misc]
        self._each(trackers, lambda tracker: tracker.finish())

    def _each(self, trackers: dict[str, Any], act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # whatever a service of others does, the training goes on
                del trackers[name]
                self._tell(name, error)

    def _opened(self, name: str) -> Tracker | None:
        try:
            known = self._known()
            title = run_name(self._folder.url)
            tracker: MlflowTracker | WandbTracker
            if name == "mlflow":
                tracker = MlflowTracker(self._settings, title, known.get(name))
            else:
                tracker = WandbTracker(self._settings, title, known.get(name), self._local)
            self._folder.write(FILE, json.dumps(known | {name: tracker.id}, indent=1).encode())
            return tracker
        except Exception as error:
            self._tell(name, error)
            return None

    def _known(self) -> dict[str, str]:
        if not self._folder.exists(FILE):
            return {}
        values = json.loads(self._folder.read(FILE))
        return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}

    def _tell(self, name: str, error: Exception) -> None:
        remedy = f"pip install 'freqgan[{name}]'" if isinstance(error, ImportError) else "the training goes on without"
        self._note(f"tracking.{name}: {first_line(error)}; {remedy}")
