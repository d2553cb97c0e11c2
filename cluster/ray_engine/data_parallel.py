"""The executor of a model that is one stage: workers of Ray Train that share every batch.

Ray Train (``TorchTrainer``) starts the workers, starts them again when one is lost, and changes how many there are as
machines come and go. What is trained, checkpoints and their restart are the house's own: see
:mod:`cluster.ray_engine.train_worker`.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections import deque
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.train.constants import RAY_CHDIR_TO_TRIAL_DIR
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster.evaluation.background import ScoreValues
from cluster.execution.executor import RestorePoint
from cluster.execution.failure_policy import Recovery
from cluster.ray_engine.connection import connect
from cluster.ray_engine.metrics import RunTelemetry
from cluster.ray_engine.nodes import draining, gpus_are_wanted
from cluster.ray_engine.order_log import GroupStart, News, OrderLog
from cluster.ray_engine.results import raise_as_ours
from cluster.ray_engine.scoring import ScoringActor
from cluster.ray_engine.train_worker import WorkerTask, train_worker
from cluster.run.data_source import DataSource
from cluster.run.settings import RunSettings
from cluster.stages.process_group import INTERFACE_VARIABLES, loopback_interface
from cluster.storage.checksummed_files import FileRecord
from freqgan.errors import InputError, RunError, counted, first_line
from freqgan.model.stage_names import FUSION_STAGE
from freqgan.tensor_dicts import Metrics

LOOK_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 20.0
INSPECT_EVERY_S = 5.0
RESIZE_EVERY_S = 20.0
"""Between looks of Ray Train at how many workers there could be; Ray counts its machines every 20 s itself."""


class DataParallelExecutor:
    """Runs the steps of the jointly trained system in a group of workers.

    Args:
        settings: of the run.
        source: the shards.
        statistics: of the bands, by name.
        restore: state to begin from, or None for a new run.
        address: of a running cluster, "auto" for the one this process is part of; None starts one here, on loopback.

    """

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        restore: RestorePoint | None,
        address: str | None = None,
    ) -> None:
        self.settings, self.source = settings, source
        self.recoveries: deque[Recovery] = deque()
        self._owns_ray = connect(settings, address)
        self._first = self._finished = self._submitted = 0 if restore is None else restore.step
        self._saves: dict[int, str] = {}
        self._pending_saves: deque[Any] = deque()
        self._group: GroupStart | None = None
        self._scorer = ScoringActor(settings)
        self._telemetry = RunTelemetry(settings.run)
        self._started_s = self._last_commit_s = self._finished_at_s = time.monotonic()
        self._inspected_s, self._leaving = self._started_s, False
        self._fit: threading.Thread | None = None
        self._fit_error: BaseException | None = None
        try:
            use_gpus = gpus_are_wanted(settings)
            self._check_size(use_gpus)
            left_out = () if source.quarantine is None else source.quarantine.left_out
            self.orders: Any = ray.remote(OrderLog).options(num_cpus=0, max_concurrency=1000).remote(restore, left_out)
            self._start(statistics, use_gpus)
        except BaseException:
            self.close()
            raise

    def _check_size(self, use_gpus: bool) -> None:
        """Refuse more workers than a Ray of the run's own, to which no machine will come, has room for."""
        kind = "GPU" if use_gpus else "CPU"
        room, least = int(ray.cluster_resources().get(kind, 0)), self.settings.workers.min
        if self._owns_ray and room < least:
            raise InputError(
                f"workers.min: {least} workers need a {kind} each, and this machine has {room}: give at most {room}, "
                "or train on a cluster (--address)"
            )

    def _start(self, statistics: dict[str, NDArray[np.float32]], use_gpus: bool) -> None:
        """Have Ray Train run the workers, in a thread: it returns when they have ended, for good."""
        settings, workers = self.settings, self.settings.workers
        os.environ[RAY_CHDIR_TO_TRIAL_DIR] = "0"  # paths of the settings are relative to where this process is
        self._folder = tempfile.TemporaryDirectory(prefix="freqgan-train-")  # of Ray Train's own few notes
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"task": WorkerTask(self.source, statistics, self.orders)},
            torch_config=TorchConfig("nccl" if use_gpus else "gloo", timeout_s=int(settings.replica_timeout_s) or 1),
            scaling_config=ScalingConfig(
                num_workers=workers.min if workers.min == workers.max else (workers.min, workers.max),
                use_gpu=use_gpus,
                resources_per_worker={"GPU": 1} if use_gpus else {"CPU": 1},
                elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
            ),
            run_config=RunConfig(
                name=uuid.uuid4().hex,
                storage_path=self._folder.name,
                failure_config=FailureConfig(
                    max_failures=settings.max_failures, max_preemption_failures=settings.max_preemption_failures
                ),
                worker_runtime_env=_worker_environment(),
                logging_config=LoggingConfig("ERROR"),
            ),
        )

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # of any kind: it is raised where the coordinator waits
                self._fit_error = error

        self._fit = threading.Thread(target=fit, name="ray-train", daemon=True)
        self._fit.start()

    @property
    def window(self) -> int:
        """As set: workers go on to the next step before the metrics of the last one have come."""
        return self.settings.window

    def submit(self, step: int) -> None:
        """Have ``step`` done; return at once."""
        self._submitted = step + 1
        self.orders.submit.remote(self._submitted, self._saves)

    def finish(self) -> dict[str, Metrics]:
        """Wait for the oldest step, through failures that Ray Train gets over; only metrics come here."""
        metrics: Metrics = self._wait(self.orders.finished.remote(self._finished))
        self._take_news()
        self._finished, self._finished_at_s = self._finished + 1, time.monotonic()
        self._export_metrics()
        return {FUSION_STAGE: metrics}

    def save(self, step: int, attempt: str) -> None:
        """Have the checkpoint of ``step`` written; workers go on to the next step meanwhile."""
        self._saves[step] = attempt
        self.orders.submit.remote(self._submitted, self._saves)
        self._pending_saves.append(self.orders.saved.remote(step))

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """Return the records of the oldest save, through failures."""
        ref = self._pending_saves[0]
        if not wait and not ray.wait([ref], timeout=0)[0]:
            self._check_fit()
            return None
        records: list[FileRecord] = self._wait(ref)
        self._pending_saves.popleft()
        del self._saves[min(self._saves)]  # every order has those that are still to come
        self._take_news()
        self._last_commit_s = time.monotonic()
        return records

    def score(self, step: int) -> Future[ScoreValues]:
        """Score in an actor of its own, started for the first score."""
        return self._scorer.score(step)

    def wants_to_move(self) -> bool:
        """Return False: Ray Train changes the size of the group by itself."""
        return False

    def move(self, at: RestorePoint) -> None:
        """Do nothing: see :meth:`wants_to_move`."""

    def is_leaving(self) -> bool:
        """Return whether the machine of this process is being drained."""
        if time.monotonic() - self._inspected_s >= INSPECT_EVERY_S:
            self._inspected_s = time.monotonic()
            self._leaving = ray.get_runtime_context().get_node_id() in draining()
        return self._leaving

    def close(self) -> None:
        """End the workers; and Ray itself where this executor started it."""
        if not ray.is_initialized():
            return
        if self._fit is not None:
            self.orders.end.remote()
            self._fit.join(CLOSE_TIMEOUT_S)
        self._scorer.close()
        if self._fit is not None:
            ray.kill(self.orders)
            self._folder.cleanup()
        self._fit = None
        if self._owns_ray:
            ray.shutdown()

    # -- parts -----------------------------------------------------------------------------------

    def _take_news(self) -> None:
        """Note which groups have begun since, and put the images that they found to be damaged into the quarantine."""
        news: News = self._wait(self.orders.news.remote())
        for group in news.groups:
            self._note(group)
        for images in news.damage:
            self.source.exclude(images, lambda _: None)

    def _note(self, group: GroupStart) -> None:
        """Remember a group of workers; every one but the first is what a failure, or machines that came, have made."""
        before, self._group = self._group, group
        if before is None:
            return
        cause = "a worker was lost"
        if before.workers != group.workers:
            cause = f"{counted(group.workers, 'worker')} in place of {before.workers}"
        again, seconds = max(0, self._finished - group.step), time.monotonic() - self._finished_at_s
        stages = (FUSION_STAGE,)
        self.recoveries.append(Recovery(self._finished, stages, cause, "roll back", group.step, again, seconds))
        self._telemetry.recovered((FUSION_STAGE,))

    def _wait(self, ref: Any) -> Any:
        """Return the value of ``ref``, which comes from the log of orders; raise what ended the workers for good."""
        while True:
            try:
                return ray.get(ref, timeout=LOOK_EVERY_S)
            except GetTimeoutError:
                self._check_fit()
            except RayActorError as error:
                raise RunError(
                    f"the process that tells the workers what to do was lost ({first_line(error)}); run the same "
                    "command again to resume from the checkpoint"
                ) from error
            except RayError as error:
                raise_as_ours(error)

    def _check_fit(self) -> None:
        """Raise RunError where Ray Train has given up."""
        if self._fit is None or self._fit.is_alive():
            return
        why = "its workers ended" if self._fit_error is None else first_line(self._fit_error)
        raise RunError(
            f"Ray Train has given up after {self._finished} steps, with max_failures={self.settings.max_failures}: "
            f"{why}; give its workers memory and machines that stay, or raise max_failures, and run the same command "
            "again to resume from the checkpoint"
        ) from self._fit_error

    def _export_metrics(self) -> None:
        """Set the gauges of Prometheus, after every step."""
        now_s = time.monotonic()
        quarantine = self.source.quarantine
        self._telemetry.set(
            images_per_s=self.settings.batch * (self._finished - self._first) / max(now_s - self._started_s, 1e-9),
            in_flight=self._submitted - self._finished,
            checkpoint_age_s=now_s - self._last_commit_s,
            lag_steps=0,
            left_out=len(quarantine.left_out) if quarantine else 0,
        )


def _worker_environment() -> dict[str, dict[str, str]]:
    """Return what the processes of workers need in their environment: workers that meet on loopback stay there."""
    if not ray.util.get_node_ip_address().startswith("127."):
        return {}
    return {"env_vars": dict.fromkeys(INTERFACE_VARIABLES, loopback_interface())}
