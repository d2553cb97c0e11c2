"""The actors of a run (stages, reader of shards, uploaders, a spare) and their seats: nodes for cores, whole GPUs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.actors import StageActor
from cluster.costs import counted_work, estimated
from cluster.data_actors import IngestActor, UploadActor
from cluster.members import Member, members_of
from cluster.placement import Node, Seat, place
from cluster.ray_results import lives, translated
from cluster.settings import RunSettings
from cluster.source import DataSource
from freqgan.errors import RunError

START_TIMEOUT_S = 600.0
INGEST = "ingest"
"""The name of the reader of shards, where actors are named."""
GROUP_TIMEOUT_S = 120.0
ACCELERATOR_LABEL, MARKET_LABEL, SPOT = "ray.io/accelerator-type", "ray.io/market-type", "spot"


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
        settings, index = self.settings, self.source.index
        policy = settings.ingest.image_policy(settings.image_size, settings.channels)
        arguments = (index, policy, settings.seed, settings.ingest, settings.batch)
        self.ingest = ray.remote(IngestActor).options(num_cpus=0).remote(*arguments)

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
            first = group[0].name
            address = self.seats.by_actor[first].address
            meeting = self.actors[first].open_store.remote(address, self._generation)
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


class RaySeats:
    """Where every actor of a run lives; :meth:`close` gives the GPUs back."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self._groups: dict[tuple[str, int], Any] = {}
        self.by_actor = self._place()

    def options(self, name: str) -> dict[str, Any]:
        """Ray's options for the actor ``name``; waits for a GPU where it needs one.

        Raises:
            RunError: no whole GPU became free.

        """
        seat = self.by_actor[name]
        strategy: Any
        if seat.gpu is None:
            strategy = NodeAffinitySchedulingStrategy(seat.node_id, soft=False)
        else:
            group = self._group(seat.node_id, seat.address, seat.gpu)
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        return {"num_gpus": seat.gpu_share, "scheduling_strategy": strategy}

    @property
    def spare_node(self) -> str | None:
        """Where a spare actor serves most stages; None where they sit on GPUs."""
        nodes = [seat.node_id for seat in self.by_actor.values() if seat.gpu is None]
        return max(nodes, key=nodes.count) if nodes else None

    def spare_options(self, node_id: str) -> dict[str, Any]:
        """Ray's options for an actor that may become any stage on that node."""
        return {"num_gpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}

    def replace(self, actors: Collection[str]) -> list[str]:
        """New seats for those of ``actors`` whose node is no longer alive; which they are."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        homeless = [name for name in actors if self.by_actor[name].node_id not in alive]
        if homeless:
            self.by_actor |= {name: seat for name, seat in self._place().items() if name in homeless}
        return homeless

    def close(self) -> None:
        """Gives the GPUs back."""
        for group in self._groups.values():
            remove_placement_group(group)
        self._groups = {}

    def _place(self) -> dict[str, Seat]:
        nodes = [_node(found) for found in ray.nodes() if found["Alive"]]
        wanted = self.settings.device
        return place(
            lambda kind: estimated(self.settings, counted_work(self.settings), kind),
            nodes,
            self.settings.batch,
            use_gpus=wanted == "cuda" or (wanted == "auto" and any(node.gpus for node in nodes)),
            members=members_of(self.settings),
        )

    def _group(self, node_id: str, address: str, gpu: int) -> Any:
        """One whole GPU of a node, taken for all stages that share it.

        Shares alone leave the choice of the GPU to Ray, which may fill them so that the last share fits on none.
        """
        if (node_id, gpu) not in self._groups:
            group = placement_group([{"GPU": 1, f"node:{address}": 0.001}])
            if not group.wait(GROUP_TIMEOUT_S):
                remove_placement_group(group)
                wanted = len({(seat.node_id, seat.gpu) for seat in self.by_actor.values()})
                free, there = (r.get("GPU", 0) for r in (ray.available_resources(), ray.cluster_resources()))
                raise RunError(
                    f"no whole GPU became free on node {address} within {GROUP_TIMEOUT_S:g} s; the plan wants {wanted} "
                    f"GPUs, free are {free:g} of {there:g}: stop what holds them, add nodes, or set device=cpu"
                )
            self._groups[node_id, gpu] = group
        return self._groups[node_id, gpu]


def _node(found: dict[str, Any]) -> Node:
    """A node as Ray lists it; its labels say which accelerator it has, and whether it is a spot machine."""
    resources, labels = found["Resources"], found.get("Labels") or {}
    return Node(
        found["NodeID"],
        found["NodeManagerAddress"],
        resources.get("CPU", 0.0),
        resources.get("GPU", 0.0),
        labels.get(ACCELERATOR_LABEL, ""),
        labels.get(MARKET_LABEL) == SPOT,
    )
