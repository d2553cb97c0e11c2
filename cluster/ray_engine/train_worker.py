"""A worker of a data-parallel training: the loop that Ray Train runs in each process of its group.

Every worker reads the whole batch and trains on its own rows; gradients are the mean over all rows. Which steps, and
from which checkpoint, it asks of the :class:`~cluster.ray_engine.order_log.OrderLog`; Ray Train only starts the group,
starts it again when one of its workers is lost, and changes its size.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.train.collective import broadcast_from_rank_zero

from cluster.data.quarantine import Quarantine, QuarantinedImage, read_around_damage
from cluster.data.reader import Batch, BatchReader
from cluster.execution.executor import RestorePoint
from cluster.ray_engine.metrics import StageTelemetry
from cluster.ray_engine.order_log import Order, Start
from cluster.run.data_source import DataSource
from cluster.run.layout import CHECKPOINTS
from cluster.stages.host import FusionHost, build_chain, tensor_of
from cluster.stages.malloc import keep_freed_pages
from cluster.stages.process_group import FormedGroup, GroupBrokenError
from cluster.stages.replicas import StageReplica
from cluster.storage.checksummed_files import FileRecord, write_files
from cluster.storage.folder import open_folder
from freqgan.errors import FreqganError
from freqgan.model.stage_names import FUSION_STAGE


@dataclass(frozen=True)
class WorkerTask:
    """What every worker is given.

    Attributes:
        source: the shards, and the settings of the run.
        statistics: of the bands by name, (C,) each.
        orders: the actor that says what to do.

    """

    source: DataSource
    statistics: dict[str, NDArray[np.float32]]
    orders: Any


def train_worker(config: dict[str, WorkerTask]) -> None:
    """Train until the orders end; what would fail again in any other group is told, and ends this one quietly.

    Raises:
        GroupBrokenError: another worker is lost; Ray Train then starts a new group.

    """
    task = config["task"]
    try:
        TrainWorker(task).run()
    except GroupBrokenError:
        raise
    except FreqganError as error:  # a failure that was told before stays the first one
        ray.get(task.orders.fail.remote(error))


class TrainWorker:
    """One of the workers; the one of rank 0 speaks for all, and writes checkpoints beside the training."""

    def __init__(self, task: WorkerTask) -> None:
        keep_freed_pages()
        context = ray.train.get_context()
        self.rank, self.count = context.get_world_rank(), context.get_world_size()
        self.orders, settings = task.orders, task.source.settings
        self.settings = settings
        start = self._agree_on_start()
        self.source = self._own_source(task.source, start.left_out)
        self.reader: BatchReader = self.source.ingest()
        chain = build_chain(settings, task.statistics)
        group = FormedGroup(self.rank, self.count, chain.device, settings.batch) if self.count > 1 else None
        self.host = FusionHost(settings, StageReplica(FUSION_STAGE, self.rank, self.count), chain, group)
        if start.restore is not None:
            self.host.load(start.restore.root_url, start.restore.records, start.restore.step)
        self.telemetry = StageTelemetry(settings.run, FUSION_STAGE) if self.rank == 0 else None
        self._saved_at = self.host.done  # what it began with is written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writes: deque[Future[None]] = deque()

    def _agree_on_start(self) -> Start:
        """Return where the group begins: what the worker of rank 0 was told."""
        number = ray.get(self.orders.begin.remote(self.count)) if self.rank == 0 else None
        start: Start = ray.get(self.orders.start.remote(broadcast_from_rank_zero(number)))
        return start

    def _own_source(self, source: DataSource, left_out: tuple[QuarantinedImage, ...]) -> DataSource:
        """Return ``source`` with a quarantine of this process: the coordinator keeps the run's."""
        limit = self.settings.max_damaged
        return source if source.quarantine is None else replace(source, quarantine=Quarantine(None, limit, left_out))

    def run(self) -> None:
        """Do what the orders say until they end."""
        try:
            while True:
                step = self.host.done
                has_saved = self.rank > 0 or step == self._saved_at
                order: Order = ray.get(self.orders.order.remote(step, has_saved=has_saved))
                if order.attempt is not None:
                    self._save(order.attempt)
                elif order.until == step:
                    return
                while self.host.done < order.until:
                    self._step()
        finally:
            self._writer.shutdown()
            self.reader.close()
            self._check_writes()

    def _step(self) -> None:
        step = self.host.done
        batch = self._batch(step)
        result = self.host.step(step, tensor_of(batch.images), tensor_of(batch.targets), {})
        if self.telemetry is not None:
            self.telemetry.stepped(step, result.metrics, batch.pixels, [])
            self.orders.stepped.remote(step, result.metrics)
        self._check_writes()

    def _batch(self, step: int) -> Batch:
        """Return the batch of ``step``; all workers find the same damage at the same place, and one of them tells."""
        size = self.settings.batch

        def exclude(images: tuple[QuarantinedImage, ...]) -> None:
            if self.rank == 0:
                ray.get(self.orders.found_damage.remote(images))
            self.source.exclude(images, self.reader.leave_out)

        if self.source.quarantine is None:
            return self.reader.batch(step * size, size)
        return read_around_damage(lambda: self.reader.batch(step * size, size), exclude)

    def _save(self, attempt: str) -> None:
        """Have the checkpoint of this step written beside the training, after those that still are.

        The coordinator sees to it that these are few. Nobody waits for them here: the others would be kept waiting.
        """
        step = self._saved_at = self.host.done
        self._writes.append(self._writer.submit(self._write_files, step, self.host.packed(step, attempt)))

    def _write_files(self, step: int, files: dict[str, bytes | FileRecord]) -> None:
        """Write the files of a checkpoint; tell what went wrong at once, for the worker may be waiting for orders."""
        root = open_folder(self.settings.run).child(CHECKPOINTS).url
        try:
            records = write_files(root, files)
        except FreqganError as error:
            ray.get(self.orders.fail.remote(error))
            raise
        ray.get(self.orders.wrote.remote(RestorePoint(step, root, records)))

    def _check_writes(self) -> None:
        """Raise what went wrong with a checkpoint that is done."""
        while self._writes and self._writes[0].done():
            self._writes.popleft().result()
