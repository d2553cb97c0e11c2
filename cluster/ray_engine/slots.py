"""Where the actors of a run are in a Ray cluster: their slots, and the GPUs taken for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.planning.cost_model import counted_work, estimated
from cluster.planning.placement import Node, Slot, place
from cluster.planning.rebalancing import rebalance
from cluster.planning.stage_cost import StageCost
from cluster.ray_engine.nodes import LEAST_SHARE, draining, pinned_to_node, usable_nodes
from cluster.run.settings import RunSettings
from cluster.stages.replicas import replicas_of
from freqgan.errors import RunError

GROUP_TIMEOUT_S = 120.0
POLL_S = 1.0


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
        slot = self.by_actor[name]
        if slot.gpu is None:
            return pinned_to_node(slot.node_id, slot.address)
        group = self._group(slot.node_id, slot.address, slot.gpu)
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        return {"num_cpus": 0, "num_gpus": slot.gpu_share, "scheduling_strategy": strategy}

    @property
    def spare(self) -> Slot | None:
        """Where a spare actor serves most stages; None where they sit on GPUs."""
        slots = [slot for slot in self.by_actor.values() if slot.gpu is None]
        return max(slots, key=slots.count) if slots else None

    @property
    def machines(self) -> dict[str, str]:
        """The machines that actors are on: their addresses by their names in Ray."""
        return {slot.node_id: slot.address for slot in self.by_actor.values()}

    def occupied(self) -> dict[str, Node]:
        """Return the usable machines that actors are on, by their names in Ray."""
        return {node.node_id: node for node in self.nodes if node.node_id in self.machines}

    def homeless(self) -> list[str]:
        """Return the actors whose machine is gone, or cannot be reached from here."""
        usable = {node.node_id for node in usable_nodes(drained=True)}
        return [name for name, slot in self.by_actor.items() if slot.node_id not in usable]

    def better(self) -> dict[str, Slot] | None:
        """Return new slots for actors that should move, since machines come or go; None where there are none.

        Which those are is for :func:`cluster.planning.rebalancing.rebalance` to say.

        Asked for once per change: an answer that is not taken is not given again.
        """
        leaving, there = draining(), usable_nodes(drained=True)
        nodes = [node for node in there if node.node_id not in leaving]
        known = {node.node_id for node in self.nodes}
        if {node.node_id for node in nodes} == known:
            return {}
        if {slot.node_id for slot in self.by_actor.values()} - {node.node_id for node in there}:
            return {}  # a machine is lost: a failure, not a move
        self.nodes = nodes
        return rebalance(self.by_actor, self._costs, nodes, self.settings.batch, replicas=replicas_of(self.settings))

    def take(self, slots: Mapping[str, Slot]) -> None:
        """Make these the slots of their actors; GPUs that nobody has any more are given back."""
        self.by_actor |= slots
        wanted = {(slot.node_id, slot.gpu) for slot in self.by_actor.values()}
        for key in [key for key in self._groups if key not in wanted]:
            remove_placement_group(self._groups.pop(key))

    def close(self) -> None:
        """Give the GPUs back."""
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
            machines=self.settings.machines,
        )

    def _awaited_nodes(self) -> list[Node]:
        """Return the usable machines, as soon as one has what the run needs: workers come up after the head."""
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
        """Take one whole GPU of a node for all stages that share it; return its placement group.

        Shares alone leave the choice of the GPU to Ray, which may fill them so that the last share fits on none.
        """
        if (node_id, gpu) not in self._groups:
            group = placement_group([{"GPU": 1, f"node:{address}": LEAST_SHARE}])
            if not group.wait(GROUP_TIMEOUT_S):
                remove_placement_group(group)
                wanted = len({(slot.node_id, slot.gpu) for slot in self.by_actor.values()})
                free, there = (r.get("GPU", 0) for r in (ray.available_resources(), ray.cluster_resources()))
                raise RunError(
                    f"no whole GPU became free on node {address} within {GROUP_TIMEOUT_S:g} s; the plan wants {wanted} "
                    f"GPUs, free are {free:g} of {there:g}: stop what holds them, add nodes, or set device=cpu"
                )
            self._groups[node_id, gpu] = group
        return self._groups[node_id, gpu]
