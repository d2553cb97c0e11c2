"""One Ray actor per GAN, chained through the object store.

The coordinator submits every call of a step in the order of the chain and owns every reference; Ray's
argument dependencies make the chain a pipeline in which GAN i trains on batch t while GAN i - 1 trains on
batch t + 1. An actor runs its calls in the order of submission, so every stage sees exactly the sequence
that the inline executor gives it. Only sub-images and uint8 batches travel.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tenacity import Retrying, stop_after_attempt, wait_fixed

from cluster.actors import EvaluationActor, IngestActor, StageActor
from cluster.executors import Restore, kept_steps, watched
from cluster.files import FileRecord
from cluster.placement import Node, Seat, place
from cluster.program import stage_names, step_program
from cluster.settings import RunSettings
from cluster.source import DataSource
from cluster.watching import ScoreValues
from freqgan.critic import Metrics
from freqgan.errors import FreqganError, RunError
from freqgan.image_stage import IMAGE_STAGE

START_TIMEOUT_S = 600.0
START_ATTEMPTS = 3
Result = TypeVar("Result")


class RayExecutor:
    """See the module.

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
        restore: Restore | None,
        address: str | None = None,
    ) -> None:
        self.settings = settings
        self.plan = settings.band_plan()
        self.program = step_program(self.plan)
        self.receivers = [gan.name for gan in self.plan.gans] if settings.feeds_back else []
        self._gradients: dict[int, dict[str, Any]] = {}
        self._owns_ray = connect(settings, address)
        self._scorer: Any = None
        self._steps: deque[dict[str, Any]] = deque()
        self._saves: deque[list[Any]] = deque()
        self.seats = self._place()
        self.ingest: Any = ray.remote(IngestActor).options(num_cpus=0).remote(source)
        dump, shared = settings.model_dump(mode="json"), ray.put(statistics)
        self.actors = {name: self._actor(name, dump, shared) for name in stage_names(self.plan)}
        self._start(restore)

    @property
    def window(self) -> int:
        """As set: beyond it, finished sub-images would pile up in the object store."""
        return self.settings.window

    def submit(self, step: int) -> None:
        """Submits every call of ``step``; returns at once."""
        images, labels = self.ingest.batch.options(num_returns=2).remote(step)
        outputs: dict[tuple[str, int], Any] = {}
        metrics: dict[str, Any] = {}
        told = self._gradients.pop(step - self.settings.feedback.lag, {})
        for call in self.program:
            names = [name for name, _ in call.inputs]
            inputs = [outputs[key] for key in call.inputs]
            actor = self.actors[call.stage]
            if call.kind == "forward":
                outputs[call.stage, call.pass_number] = actor.forward.remote(step, names, labels, *inputs)
            else:
                receivers = self.receivers if call.stage == IMAGE_STAGE else [call.stage]
                arguments = (step, names, images, labels, told.get(call.stage), *inputs)
                returned = actor.step.options(num_returns=1 + len(receivers)).remote(*arguments)
                metrics[call.stage], *made = returned if receivers else [returned]
                if call.stage == IMAGE_STAGE:
                    self._gradients[step] = dict(zip(receivers, made, strict=True))
                else:
                    outputs[call.stage, call.pass_number] = made[0]
        self._steps.append(metrics)

    def finish(self) -> dict[str, Metrics]:
        """Waits for every stage of the oldest step; only metrics come here."""
        refs = self._steps.popleft()
        return dict(zip(refs, self._wait(list(refs.values())), strict=True))

    def save(self, step: int, folder_url: str) -> None:
        """Queues a save behind the steps already submitted; the pipeline is not drained."""
        self._saves.append([actor.save.remote(step, folder_url) for actor in self.actors.values()])

    def saved(self) -> list[FileRecord]:
        """Waits for the oldest save."""
        return [record for records in self._wait(self._saves.popleft()) for record in records]

    def score(self, step: int) -> Future[ScoreValues]:
        """In an actor of its own, started for the first score."""
        if self._scorer is None:
            self._scorer = ray.remote(EvaluationActor).options(num_cpus=0).remote()
        ref = self._scorer.score.remote(self.settings.run, step, *watched(self.settings))
        future: Future[ScoreValues] = ref.future()
        return future

    def close(self) -> None:
        """Ends the actors; and Ray itself where this executor started it."""
        if ray.is_initialized():
            for actor in [*self.actors.values(), self.ingest, *filter(None, [self._scorer])]:
                ray.kill(actor)
            self.actors = {}
            if self._owns_ray:
                ray.shutdown()

    # -- starting ------------------------------------------------------------------------------

    def _place(self) -> dict[str, Seat]:
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = [Node(n["NodeID"], n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in alive]
        wanted = self.settings.device
        use_gpus = wanted == "cuda" or (wanted == "auto" and any(node.gpus for node in nodes))
        sides = {gan.name: self.settings.image_size / 2**gan.level for gan in self.plan.gans}
        costs = {name: sides.get(name, self.settings.image_size / 2) ** 2 for name in stage_names(self.plan)}
        return place(costs, nodes, use_gpus=use_gpus)

    def _actor(self, name: str, settings: dict[str, Any], statistics: Any) -> Any:
        seat = self.seats[name]
        options = {
            "num_cpus": 0,
            "num_gpus": seat.gpu_share,
            "max_restarts": 0,
            "max_task_retries": 0,  # a retried step would run on a fresh, untrained actor
            "scheduling_strategy": NodeAffinitySchedulingStrategy(seat.node_id, soft=False),
        }
        return ray.remote(StageActor).options(**options).remote(settings, name, statistics)

    def _start(self, restore: Restore | None) -> None:
        ready = [actor.ready.remote() for actor in self.actors.values()]
        _, late = _translated(lambda: ray.wait(ready, num_returns=len(ready), timeout=START_TIMEOUT_S))
        if late:
            raise RunError(
                f"{len(late)} of {len(ready)} actors did not start within {START_TIMEOUT_S:g} s; the cluster offers "
                f"{ray.cluster_resources()}: add nodes, or train fewer GANs (plan.bands)"
            )
        self._wait(ready)
        if restore is not None:
            arguments = (restore.folder_url, restore.records, restore.step)
            self._wait([actor.load.remote(*arguments) for actor in self.actors.values()])
        for step in kept_steps(self.settings, restore):
            refs = self.actors[IMAGE_STAGE].gradients.options(num_returns=len(self.receivers)).remote(step)
            self._gradients[step] = dict(zip(self.receivers, refs if len(self.receivers) > 1 else [refs], strict=True))

    def _wait(self, refs: list[Any]) -> list[Any]:
        return _translated(lambda: ray.get(refs))


def connect(settings: RunSettings, address: str | None) -> bool:
    """Joins the cluster at ``address``, or starts one on this machine; True when it was started here.

    A cluster that this process has already joined is used as it is, and so is the one that RAY_ADDRESS names
    (a submitted job has it set). Any other cluster on this machine is left alone: it may be somebody else's,
    or what a killed run has left behind.
    """
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="freqgan")
        except (ConnectionError, RayError, ValueError, RuntimeError) as error:
            raise RunError(f"--address {address}: no Ray cluster answers there ({error}); check the address") from error
        return False
    start_local_ray(object_store_bytes(settings))
    return True


def start_local_ray(object_store_memory_bytes: int, cpus: int | None = None) -> None:
    """Starts a Ray of this process's own, on loopback, with one CPU per core unless ``cpus`` is given.

    Started again when it does not come up: Ray's node gives up when its agents take more than 15 s to start,
    as they do on a busy machine or from a disk that has not read them yet.

    Raises:
        RunError: it did not come up, START_ATTEMPTS times in a row.

    """
    attempts = Retrying(
        stop=stop_after_attempt(START_ATTEMPTS), wait=wait_fixed(2), after=lambda _: ray.shutdown(), reraise=True
    )
    try:
        attempts(
            ray.init,
            address="local",  # never one that is there already: it may be what a killed run has left behind
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="freqgan",
            _node_ip_address="127.0.0.1",
            object_store_memory=object_store_memory_bytes,
        )
    except Exception as error:  # Ray raises bare Exceptions here
        raise RunError(
            f"Ray did not start on this machine, {START_ATTEMPTS} times in a row ({error}); its logs are in "
            "/tmp/ray/session_latest/logs. Free memory or processors, or run with executor=inline"
        ) from error


def object_store_bytes(settings: RunSettings) -> int:
    """Room for a window of steps (uint8 images, float32 sub-images, their intermediate low bands, gradients), twice."""
    image = settings.batch * settings.channels * settings.image_size**2
    steps = settings.window + settings.feedback.lag + 2
    return max(256 * 2**20, 2 * steps * image * (1 + 6 * settings.plan.cycles))


def _translated(action: Callable[[], Result]) -> Result:
    """What ``action`` returns; Ray's errors as ours, with what happened inside the actor in front."""
    try:
        return action()
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, FreqganError) else None
        if cause is not None:
            raise cause from error
        raise RunError(f"a stage failed: {error.cause or error}; its traceback is in Ray's logs") from error
    except RayActorError as error:
        raise RunError(
            f"an actor died: {str(error).splitlines()[0]}; run the same command again to resume from its checkpoint"
        ) from error
    except RayError as error:
        raise RunError(f"Ray failed: {str(error).splitlines()[0]}; run the same command again to resume") from error
