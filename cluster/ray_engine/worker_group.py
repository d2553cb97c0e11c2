"""The actors of a run: stages, readers of shards, uploaders, a spare; each in its slot, of cores or of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError

from cluster.planning.placement import Slot
from cluster.ray_engine.actors import StageActor
from cluster.ray_engine.io_actors import IngestActor, UploadActor
from cluster.ray_engine.nodes import draining, pinned_to_node
from cluster.ray_engine.results import is_alive, is_ready, retry_lost_calls
from cluster.ray_engine.slots import Allocation
from cluster.run.data_source import DataSource
from cluster.run.layout import CHECKPOINTS
from cluster.run.settings import RunSettings
from cluster.stages.replicas import StageReplica, replicas_of
from cluster.storage.folder import open_folder
from freqgan.errors import RunError

INGEST = "ingest"
"""The name of the reader of shards, where actors are named."""
PLAIN = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
"""For every actor of a run. No retries: a retried step would run on a fresh, untrained one. No account of every call
in Ray's head, which grew by 2 MB a minute for it at 20 calls a second: the report has a time line of its own."""
UPLOADER = "uploader"
"""That of all who write checkpoints, where recoveries are counted."""


class WorkerGroup:
    """Every actor of a run by its name; see :class:`StageReplica`.

    Args:
        settings: of the run.
        source: the shards.
        statistics: of the bands, by name.
        use_gpus: whether stages sit on GPUs.

    """

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        use_gpus: bool,
    ) -> None:
        self.settings, self.source = settings, source
        self._checkpoints_url = open_folder(settings.run).child(CHECKPOINTS).url
        self.groups = replicas_of(settings)
        self.allocation = Allocation(settings, use_gpus)
        self._settings_dump, self._statistics = settings.model_dump(mode="json"), ray.put(statistics)
        self._generation = 0
        self._spare: Any = None
        self._spare_node = ""
        self.uploaders: dict[str, Any] = {}
        """By machine: a state is written from where it is."""
        self._started: dict[str, Any] = {}
        """References to the answers of those that have been started: who has not answered yet is still importing."""
        self.readers: dict[str, Any] = {}
        """Of shards, by name; they take turns, step by step."""
        for number in range(settings.readers):
            self.renew_reader(f"{INGEST}@{number}" if number else INGEST)
        self.actors: dict[str, Any] = {}

    @property
    def replicas(self) -> list[StageReplica]:
        """All replicas of all stages, in the order of the chain."""
        return [replica for group in self.groups.values() for replica in group]

    def replica(self, name: str) -> StageReplica:
        """Return the replica of that name."""
        return next(replica for replica in self.replicas if replica.name == name)

    def start(self, wait: Callable[[list[Any]], list[Any]]) -> None:
        """Start all and wait for them; RunError when some do not start, with what the cluster offers."""
        self._start_uploaders()
        for replica in self.replicas:
            self._assign_actor(replica)
        try:
            retry_lost_calls([partial(self.build, replica) for replica in self.replicas], wait)
        except GetTimeoutError as error:
            count = len(self.replicas) + len(self.readers)
            raise RunError(
                f"{count - len(self.started())} of {count} actors did not start in time ({error}); the cluster offers "
                f"{ray.cluster_resources()}: add nodes, or train fewer GANs (plan.bands)"
            ) from error

    def renew_reader(self, name: str) -> None:
        """Start a reader of shards beside this process: what it has read outlives the loss of any other machine."""
        arguments = (self.source.reader_factory(), self.settings.batch)
        self.readers[name] = ray.remote(IngestActor).options(**PLAIN, **_beside_this_process()).remote(*arguments)
        self._started[name] = self.readers[name].ready.remote()

    def reader_of(self, step: int) -> str:
        """Return the name of the reader of ``step``, by the step alone: it is the same when it is read again."""
        return list(self.readers)[step % len(self.readers)]

    def place(self, replica: StageReplica) -> Any:
        """Give ``replica`` an actor and have it built; return a reference to wait for."""
        self._assign_actor(replica)
        return self.build(replica)

    def _assign_actor(self, replica: StageReplica) -> None:
        """Give ``replica`` an actor: the spare one if it is in the right place, else a new one."""
        slot = self.allocation.by_actor[replica.name]
        spare, fits = self._spare, slot.gpu is None and slot.node_id == self._spare_node
        if spare is not None and fits and is_alive(spare):
            actor, self._spare = spare, None
        else:
            actor = _stage_actor(self.allocation.options(replica.name))
        self.actors[replica.name] = actor

    def build(self, replica: StageReplica) -> Any:
        """Have the actor of ``replica`` be it as at the very start; return a reference to wait for."""
        ref = self.actors[replica.name].build.remote(self._settings_dump, replica, self._statistics)
        self._started[replica.name] = ref
        return ref

    def actor(self, name: str) -> Any:
        """Return the actor of that name, be it a reader of shards."""
        return self.readers[name] if name in self.readers else self.actors[name]

    def started(self) -> list[str]:
        """Return the names of the actors that have been built, or have died over it."""
        return [name for name, ref in self._started.items() if is_ready(ref)]

    def kill(self, name: str) -> None:
        """End an actor; what was asked of it fails at once, be its machine out of reach."""
        ray.kill(self.actor(name))

    def move(self, slots: Mapping[str, Slot]) -> None:
        """End the actors that get new ``slots`` and start others there, to be built and loaded."""
        for name in slots:
            self.kill(name)
        self.allocation.take(slots)
        self._start_uploaders()
        for name in slots:
            self._assign_actor(self.replica(name))

    def form_groups(self, stages: Collection[str]) -> list[Any]:
        """Have the groups of ``stages`` with several replicas formed anew; return references to wait for."""
        refs = []
        for group in [self.groups[stage] for stage in stages if len(self.groups[stage]) > 1]:
            self._generation += 1
            first = group[0].name
            address = self.allocation.by_actor[first].address
            meeting = self.actors[first].open_store.remote(address, self._generation)
            refs += [self.actors[replica.name].join.remote(meeting) for replica in group]
        return refs

    def keep_a_spare(self) -> None:
        """Keep one actor that has imported everything and wait: to start one takes longer than most replays.

        On a machine without GPUs only: a GPU would have to be held for it.
        """
        slot = self.allocation.spare
        if self._spare is None and self.settings.max_failures != 0 and slot is not None:
            self._spare, self._spare_node = _stage_actor(pinned_to_node(slot.node_id, slot.address)), slot.node_id

    def upload(self, name: str, files: Any) -> Any:
        """Write ``files`` (a reference) of actor ``name`` from its machine; return a reference to their records."""
        return self.uploaders[self.home_of(name)].write.remote(self._checkpoints_url, files)

    def home_of(self, name: str) -> str:
        """Return the machine of actor ``name``."""
        return self.allocation.by_actor[name].node_id

    def renew_uploader(self, node_id: str) -> None:
        """Replaces the uploader of a machine; beside this process where the machine is to go and takes nothing new."""
        ray.kill(self.uploaders[node_id])
        place = (
            _beside_this_process()
            if node_id in draining()
            else pinned_to_node(node_id, self.allocation.machines[node_id])
        )
        self.uploaders[node_id] = _uploader(place)

    def _start_uploaders(self) -> None:
        """Start uploaders where there are none: at once, since nothing may be started on a machine that is to go."""
        for node_id, address in self.allocation.machines.items():
            if node_id not in self.uploaders:
                self.uploaders[node_id] = _uploader(pinned_to_node(node_id, address))

    def end(self) -> None:
        """End all of them and give their slots back."""
        for actor in [
            *self.actors.values(),
            *self.readers.values(),
            *self.uploaders.values(),
            *filter(None, [self._spare]),
        ]:
            ray.kill(actor)
        self.actors, self._spare, self.uploaders = {}, None, {}
        self.allocation.close()


def _beside_this_process() -> dict[str, Any]:
    return pinned_to_node(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())


def _uploader(place: dict[str, Any]) -> Any:
    return ray.remote(UploadActor).options(**PLAIN, **place).remote()


def _stage_actor(options: dict[str, Any]) -> Any:
    return ray.remote(StageActor).options(**PLAIN, **options).remote()
