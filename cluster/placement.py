"""Which stage lives on which device of a cluster that is there: a plan of whole stages, as seats for actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.bounds import StageCost
from cluster.inventory import ACCELERATORS, CPU, Device
from cluster.planning import Rules, make_plan
from freqgan.errors import InputError
from freqgan.image_stage import IMAGE_STAGE

UNLIMITED_BYTES = 2**60
RESOLUTION = 10_000
"""Ray knows shares of a GPU in steps of 1/10,000."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster with what it can give; ``spot`` machines may be taken away at any time."""

    node_id: str
    address: str
    cpus: float
    gpus: float
    accelerator: str = ""
    spot: bool = False


@dataclass(frozen=True)
class Seat:
    """Where one stage lives: a node, and which GPU of the plan and how much of it (None and 0 on a CPU)."""

    node_id: str
    address: str
    gpu: int | None
    gpu_share: float


def place(costs: Callable[[str], Sequence[StageCost]], nodes: Sequence[Node], batch: int, *, use_gpus: bool,
          names: Sequence[str]) -> dict[str, Seat]:  # fmt: skip
    """A seat for every stage, whole, so that the busiest device is as little busy as can be.

    The image stage, which all others wait for, stays off spot machines where there are others.

    Args:
        costs: of the stages on a type of device, by its name; asked for only where there is a choice.
        nodes: alive nodes.
        batch: images of a step.
        use_gpus: place by GPUs, on nodes that have some.
        names: of the stages, in the order of the chain.

    Raises:
        InputError: no node can take a stage.

    """
    devices = _devices(nodes, use_gpus)
    if not devices:
        what = "GPU" if use_gpus else "CPU"
        raise InputError(f"no {what} in the cluster of {len(nodes)} nodes: add a node, or set device=cpu")
    by_id = {node.node_id: node for node in nodes}
    if len({device.node for device in devices}) == 1 and not use_gpus:
        only = by_id[devices[0].node]
        return {name: Seat(only.node_id, only.address, None, 0.0) for name in names}
    kinds = sorted({device.accelerator for device in devices})
    stages = {kind: costs(kind) for kind in kinds}
    whole = {kind: sum(stage.seconds(batch) for stage in stages[kind]) for kind in kinds}
    devices = [
        Device(d.node, d.index, d.accelerator, whole[kinds[0]] / whole[d.accelerator], UNLIMITED_BYTES, d.spot)
        for d in devices
    ]
    steady = any(not device.spot for device in devices)
    rules = Rules(cut=False, allowed=lambda stage, device: stage != IMAGE_STAGE or not device.spot or not steady)
    plan = make_plan(stages[kinds[0]], devices, batch, rules)
    crowd = Counter(replica.device for replica in plan.replicas)
    seats = {}
    for replica in plan.replicas:
        node = by_id[plan.devices[replica.device].node]
        share = RESOLUTION // crowd[replica.device] / RESOLUTION
        seats[replica.stage] = Seat(
            node.node_id, node.address, replica.device if use_gpus else None, share if use_gpus else 0.0
        )
    return seats


def _devices(nodes: Sequence[Node], use_gpus: bool) -> list[Device]:
    """One for every whole GPU, or for every core (at least one where a node offers any part of one)."""
    devices = []
    for node in nodes:
        count = int(node.gpus) if use_gpus else max(int(node.cpus), int(node.cpus > 0))
        known = node.accelerator if node.accelerator in ACCELERATORS else "H100"
        kind = known if use_gpus else CPU
        devices += [Device(node.node_id, i, kind, 1.0, UNLIMITED_BYTES, node.spot) for i in range(count)]
    return devices
