"""The actors of a run: one per member of a stage, the reader of shards, a spare; started, replaced and grouped."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors import IngestActor, StageActor
from cluster.members import Member, members_of
from cluster.ray_results import lives, translated
from cluster.ray_seats import RaySeats
from cluster.settings import RunSettings
from cluster.source import DataSource
from cluster.uploading import UploadActor
from freqgan.errors import RunError

START_TIMEOUT_S = 600.0
INGEST = "ingest"
"""The name of the reader of shards, where actors are named."""


class Crew:
    """Every actor of a run by its name; see :class:`Member`.

    Args:
        settings: of the run.
        source: the shards.
        statistics: of the bands, by name.

    """

    def __init__(self, settings: RunSettings, source: DataSource, statistics: dict[str, NDArray[np.float32]]) -> None:
        self.settings, self.source = settings, source
        self.groups = members_of(settings)
        self.seats = RaySeats(settings)
        self._dump, self._statistics = settings.model_dump(mode="json"), ray.put(statistics)
        self._generation = 0
        self._spare: Any = None
        self.uploaders: dict[str, Any] = {}
        """By machine: a state is written from where it is."""
        self.ingest: Any = None
        self.renew_ingest()
        self.actors: dict[str, Any] = {}

    @property
    def members(self) -> list[Member]:
        """All of them, in the order of the chain."""
        return [member for group in self.groups.values() for member in group]

    def start(self) -> None:
        """Starts all and waits for them; RunError when some do not start, with what the cluster offers."""
        ready = [self.seat(member) for member in self.members]
        _, late = translated(lambda: ray.wait(ready, num_returns=len(ready), timeout=START_TIMEOUT_S))
        if late:
            raise RunError(
                f"{len(late)} of {len(ready)} actors did not start within {START_TIMEOUT_S:g} s; the cluster offers "
                f"{ray.cluster_resources()}: add nodes, or train fewer GANs (plan.bands)"
            )
        translated(lambda: ray.get(ready))

    def renew_ingest(self) -> None:
        """A new reader of shards."""
        self.ingest = ray.remote(IngestActor).options(num_cpus=0).remote(self.source)

    def seat(self, member: Member) -> Any:
        """Makes an actor that member, the spare one if it is in the right place; a reference to wait for."""
        seat = self.seats.by_actor[member.name]
        spare, fits = self._spare, seat.gpu is None and seat.node_id == self.seats.spare_node
        if spare is not None and fits and lives(spare):
            actor, self._spare = spare, None
        else:
            actor = _stage_actor(self.seats.options(member.name))
        self.actors[member.name] = actor
        return self.build(member)

    def build(self, member: Member) -> Any:
        """Makes an actor that is there the stage as it is at the very start; a reference to wait for."""
        return self.actors[member.name].build.remote(self._dump, member, self._statistics)

    def form_groups(self, stages: Collection[str]) -> list[Any]:
        """References to wait for: a new generation of the group of each of ``stages`` that has several replicas."""
        refs = []
        for group in [self.groups[stage] for stage in stages if len(self.groups[stage]) > 1]:
            self._generation += 1
            meeting = self.actors[group[0].name].open_store.remote(self._generation)
            refs += [self.actors[member.name].join.remote(meeting) for member in group]
        return refs

    def keep_a_spare(self) -> None:
        """One actor that has imported everything and waits: to start one takes longer than most replays.

        On a machine without GPUs only: a GPU would have to be held for it.
        """
        node_id = self.seats.spare_node
        if self._spare is None and self.settings.max_failures != 0 and node_id is not None:
            self._spare = _stage_actor(self.seats.spare_options(node_id))

    def upload(self, name: str, folder_url: str, files: Any) -> Any:
        """A reference to the records of ``files`` (a reference) of actor ``name``, written from its own machine."""
        node_id = self.seats.by_actor[name].node_id
        if node_id not in self.uploaders:
            here = NodeAffinitySchedulingStrategy(node_id, soft=True)
            self.uploaders[node_id] = (
                ray.remote(UploadActor)
                .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
                .remote()
            )
        return self.uploaders[node_id].write.remote(folder_url, files)

    def end(self) -> None:
        """Ends all of them and gives their seats back."""
        for actor in [*self.actors.values(), self.ingest, *self.uploaders.values(), *filter(None, [self._spare])]:
            ray.kill(actor)
        self.actors, self._spare, self.uploaders = {}, None, {}
        self.seats.close()


def _stage_actor(options: dict[str, Any]) -> Any:
    # No retries: a retried step would run on a fresh, untrained actor.
    return ray.remote(StageActor).options(num_cpus=0, max_restarts=0, max_task_retries=0, **options).remote()
