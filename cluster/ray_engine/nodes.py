"""The machines of a Ray cluster: which can be used, which are to go, and how an actor is put on one."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.planning.placement import Node
from cluster.run.settings import RunSettings

REACH_TIMEOUT_S = 2.0
LEAST_SHARE = 0.001
"""Of the resource that stands for a machine: enough to be put there."""
ACCELERATOR_LABEL, MARKET_LABEL, SPOT = "ray.io/accelerator-type", "ray.io/market-type", "spot"


def pinned_to_node(node_id: str, address: str) -> dict[str, Any]:
    """Return Ray's options for an actor on one machine that takes none of its cores.

    It takes a little of the machine's own resource: without, Ray would first ask a machine at random, which may be
    lost.
    """
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {"num_cpus": 0, "resources": {f"node:{address}": LEAST_SHARE}, "scheduling_strategy": strategy}


def usable_nodes(*, drained: bool = False) -> list[Node]:
    """Return the machines that Ray lists, that can be reached from here and, but for ``drained``, are there to stay.

    Ray goes on believing in a machine behind a broken link for about a minute.
    """
    leaving = {} if drained else draining()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    with ThreadPoolExecutor(max(1, min(32, len(alive)))) as pool:
        reached = list(pool.map(lambda n: is_reachable(n["NodeManagerAddress"], n["NodeManagerPort"]), alive))
    return [_node(node) for node, is_there in zip(alive, reached, strict=True) if is_there]


def draining() -> dict[str, int]:
    """Return the machines that are to go (a spot notice, ``ray drain-node``): their deadlines in Unix milliseconds."""
    from ray._private.state import state  # Ray has no public way to ask for it without its dashboard

    return dict(state.get_draining_nodes())


def is_reachable(host: str, port: int) -> bool:
    """Return whether something listens there."""
    try:
        socket.create_connection((host, port), timeout=REACH_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def gpus_are_wanted(settings: RunSettings) -> bool:
    """Return whether the stages are to use GPUs: decided once, so that a lost GPU is not replaced by a core later."""
    if settings.device != "auto":
        return settings.device == "cuda"
    return any(node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes() if node["Alive"])


def _node(listed: dict[str, Any]) -> Node:
    """Return a node that Ray lists; its labels say which accelerator it has, and whether it is a spot machine."""
    resources, labels = listed["Resources"], listed.get("Labels") or {}
    return Node(
        listed["NodeID"],
        listed["NodeManagerAddress"],
        resources.get("CPU", 0.0),
        resources.get("GPU", 0.0),
        labels.get(ACCELERATOR_LABEL, ""),
        labels.get(MARKET_LABEL) == SPOT,
        listed["NodeManagerPort"],
    )
