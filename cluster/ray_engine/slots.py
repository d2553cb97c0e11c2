"""Where the actors of a run sit in a Ray cluster: which machines can be used, and the GPUs taken on them."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.planning.cost_model import counted_work, estimated
from cluster.planning.placement import Node, Slot, place
from cluster.planning.rebalancing import rebalance
from cluster.planning.stage_cost import StageCost
from cluster.run.settings import RunSettings
from cluster.stages.replicas import replicas_of
from freqgan.errors import RunError

GROUP_TIMEOUT_S = 120.0
REACH_TIMEOUT_S = 2.0
POLL_S = 1.0
TRIFLE = 0.001
ACCELERATOR_LABEL, MARKET_LABEL, SPOT = "ray.io/accelerator-type", "ray.io/market-type", "spot"


class Allocation:
    """Where every actor of a run lives; :meth:`close` gives the GPUs back.

    Args:
        settings: of the run.
        use_gpus: whether the stages sit on GPUs.

    Raises:
        InputError: the machines that there are cannot take a stage.
        RunError: no machine could be used within ``machines_timeout_s``.

    """

    def __init__(self, settings: RunSettings, use_gpus: bool) -> None:
        self.settings, self.use_gpus = settings, use_gpus
        self._groups: dict[tuple[str, int], Any] = {}
        self.nodes = self._awaited_nodes()
        self.by_actor = self._place()

    def options(self, name: str) -> dict[str, Any]:
        """Ray's options for the actor ``name``; waits for a GPU where it needs one.

        Raises:
            RunError: no whole GPU became free.

        """
        seat = self.by_actor[name]
        if seat.gpu is None:
            return pinned_to_node(seat.node_id, seat.address)
        group = self._group(seat.node_id, seat.address, seat.gpu)
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        return {"num_cpus": 0, "num_gpus": seat.gpu_share, "scheduling_strategy": strategy}

    @property
    def spare(self) -> Slot | None:
        """Where a spare actor serves most stages; None where they sit on GPUs."""
        seats = [seat for seat in self.by_actor.values() if seat.gpu is None]
        return max(seats, key=seats.count) if seats else None

    @property
    def machines(self) -> dict[str, str]:
        """Those that somebody sits on: their addresses by their names in Ray."""
        return {seat.node_id: seat.address for seat in self.by_actor.values()}

    def occupied(self) -> dict[str, Node]:
        """The usable machines that somebody sits on, by their names in Ray."""
        return {node.node_id: node for node in self.nodes if node.node_id in self.machines}

    def homeless(self) -> list[str]:
        """The actors whose machine is gone, or cannot be reached from here."""
        usable = {node.node_id for node in usable_nodes(drained=True)}
        return [name for name, seat in self.by_actor.items() if seat.node_id not in usable]

    def better(self) -> dict[str, Slot] | None:
        """New seats for those who should move, since machines have come or are to go.

        Which those are is for :func:`cluster.planning.rebalancing.rebalance` to say.

        Asked for once per change: an answer that is not taken is not given again.
        """
        leaving, there = draining(), usable_nodes(drained=True)
        nodes = [node for node in there if node.node_id not in leaving]
        known = {node.node_id for node in self.nodes}
        if {node.node_id for node in nodes} == known:
            return {}
        if {seat.node_id for seat in self.by_actor.values()} - {node.node_id for node in there}:
            return {}  # a machine is lost: a failure, not a move
        self.nodes = nodes
        return rebalance(self.by_actor, self._costs, nodes, self.settings.batch, replicas=replicas_of(self.settings))

    def take(self, seats: Mapping[str, Slot]) -> None:
        """Makes these the seats of their actors; GPUs that nobody has any more are given back."""
        self.by_actor |= seats
        wanted = {(seat.node_id, seat.gpu) for seat in self.by_actor.values()}
        for key in [key for key in self._groups if key not in wanted]:
            remove_placement_group(self._groups.pop(key))

    def close(self) -> None:
        """Gives the GPUs back."""
        for group in self._groups.values():
            remove_placement_group(group)
        self._groups = {}

    def _costs(self, kind: str) -> tuple[StageCost, ...]:
        return estimated(self.settings, counted_work(self.settings), kind)

    def _place(self) -> dict[str, Slot]:
        return place(
            self._costs,
            self.nodes,
            self.settings.batch,
            use_gpus=self.use_gpus,
            replicas=replicas_of(self.settings),
        )

    def _awaited_nodes(self) -> list[Node]:
        """The usable machines, as soon as one has what the run needs: workers come up after the head."""
        timeout_s, what = self.settings.machines_timeout_s, "GPU" if self.use_gpus else "CPU"
        until_s = time.monotonic() + timeout_s
        while True:
            nodes = usable_nodes()
            if any((node.gpus >= 1 if self.use_gpus else node.cpus) for node in nodes):
                return nodes
            if time.monotonic() >= until_s:
                raise RunError(
                    f"no machine with a {what} could be used within {timeout_s:g} s (usable machines: {len(nodes)}): "
                    "add one and run the same command again, set device=cpu, or wait longer with machines_timeout_s"
                )
            time.sleep(POLL_S)

    def _group(self, node_id: str, address: str, gpu: int) -> Any:
        """One whole GPU of a node, taken for all stages that share it.

        Shares alone leave the choice of the GPU to Ray, which may fill them so that the last share fits on none.
        """
        if (node_id, gpu) not in self._groups:
            group = placement_group([{"GPU": 1, f"node:{address}": TRIFLE}])
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


def pinned_to_node(node_id: str, address: str) -> dict[str, Any]:
    """Ray's options for an actor of no weight on one machine.

    Without the trifle of a resource, Ray would first ask a machine at random for a place, be it one that is lost.
    """
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {"num_cpus": 0, "resources": {f"node:{address}": TRIFLE}, "scheduling_strategy": strategy}


def usable_nodes(*, drained: bool = False) -> list[Node]:
    """The machines that Ray believes in, that can be reached from here, and (but for ``drained``) are there to stay.

    Ray goes on believing in a machine behind a broken link for about a minute.
    """
    leaving = {} if drained else draining()
    found = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    with ThreadPoolExecutor(max(1, min(32, len(found)))) as pool:
        reached = list(pool.map(lambda n: is_reachable(n["NodeManagerAddress"], n["NodeManagerPort"]), found))
    return [_node(node) for node, there in zip(found, reached, strict=True) if there]


def draining() -> dict[str, int]:
    """The machines that are to go (a spot notice, ``ray drain-node``), with the deadline in Unix milliseconds."""
    from ray._private.state import state  # Ray has no public way to ask for it without its dashboard

    return dict(state.get_draining_nodes())


def is_reachable(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((host, port), timeout=REACH_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def gpus_are_wanted(settings: RunSettings) -> bool:
    """Whether the stages are to sit on GPUs: decided once, so that a lost GPU is not replaced by a core later."""
    if settings.device != "auto":
        return settings.device == "cuda"
    return any(node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes() if node["Alive"])


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
        found["NodeManagerPort"],
    )
