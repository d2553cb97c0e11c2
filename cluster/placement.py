"""Which stage lives on which node: a pure function of the stages' costs and the nodes' resources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from freqgan.errors import InputError


@dataclass(frozen=True)
class Node:
    """A machine of the cluster with what it can give."""

    node_id: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Seat:
    """Where one stage lives and which share of a GPU it takes (0 on a CPU)."""

    node_id: str
    gpu_share: float


def place(costs: Mapping[str, float], nodes: list[Node], *, use_gpus: bool) -> dict[str, Seat]:
    """Dearest stage first, each to the node with the least load per processor (or per GPU).

    Stages that share a GPU take equal shares of it.

    Args:
        costs: relative cost of a step by stage name.
        nodes: alive nodes.
        use_gpus: place by GPUs, on nodes that have some.

    Raises:
        InputError: no node can take a stage.

    """
    power = {node.node_id: node.gpus if use_gpus else node.cpus for node in nodes}
    usable = [node_id for node_id, capacity in power.items() if capacity > 0]
    if not usable:
        what = "GPU" if use_gpus else "CPU"
        raise InputError(f"no {what} in the cluster of {len(nodes)} nodes: add a node, or set device=cpu")
    load = dict.fromkeys(usable, 0.0)
    seats: dict[str, str] = {}
    for name, cost in sorted(costs.items(), key=lambda item: -item[1]):
        node_id = min(usable, key=lambda n: (load[n] + cost) / power[n])
        load[node_id] += cost
        seats[name] = node_id
    counts = {node_id: sum(seat == node_id for seat in seats.values()) for node_id in usable}
    return {
        n: Seat(node_id, _share(counts[node_id], power[node_id]) if use_gpus else 0.0) for n, node_id in seats.items()
    }


def _share(stages: int, gpus: float) -> float:
    """The GPU share of each of ``stages`` on ``gpus``; Ray resolves shares to 1/10,000."""
    per_gpu = math.ceil(stages / gpus)
    return math.floor(10_000 / per_gpu) / 10_000
