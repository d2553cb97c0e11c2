"""Seats for actors in a Ray cluster: nodes for cores, placement groups for whole GPUs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.costs import counted_work, estimated
from cluster.members import members_of
from cluster.placement import Node, Seat, place
from cluster.settings import RunSettings
from freqgan.errors import RunError

GROUP_TIMEOUT_S = 120.0
ACCELERATOR_LABEL, MARKET_LABEL, SPOT = "ray.io/accelerator-type", "ray.io/market-type", "spot"


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
