"""Which stage lives on which device of a cluster that is there: a plan of whole stages, as seats for actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.planning.bin_packing import make_plan
from cluster.planning.devices import ACCELERATORS, CPU, Device
from cluster.planning.plan import Constraints
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica
from freqgan.errors import InputError
from freqgan.model.stage_names import IMAGE_STAGE

UNLIMITED_BYTES = 2**60
RESOLUTION = 10_000
"""Ray knows shares of a GPU in steps of 1/10,000."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster with what it can give; ``spot`` machines may be taken away at any time.

    ``port``: where its part of Ray listens.
    """

    node_id: str
    address: str
    cpus: float
    gpus: float
    accelerator: str = ""
    spot: bool = False
    port: int = 0


@dataclass(frozen=True)
class Slot:
    """Where one stage lives: a node, and which of the node's GPUs and how much of it (None and 0 on a CPU).

    Which of them Ray gives is Ray's choice; stages with the same number share one.
    """

    node_id: str
    address: str
    gpu: int | None
    gpu_share: float


def place(costs: Callable[[str], Sequence[StageCost]], nodes: Sequence[Node], batch: int, *, use_gpus: bool,
          members: Mapping[str, Sequence[StageReplica]]) -> dict[str, Slot]:  # fmt: skip
    """A seat for every actor, by its name, so that the busiest device is as little busy as can be.

    The image stage, which all others wait for, stays off spot machines where there are others; replicas of one stage
    never share a device where there are enough of them.

    Args:
        costs: of the stages on a type of device, by its name; asked for only where there is a choice.
        nodes: alive nodes.
        batch: images of a step.
        use_gpus: place by GPUs, on nodes that have some.
        members: the actors of every stage, in the order of the chain.

    Raises:
        InputError: no node can take a stage.

    """
    devices = devices_of(nodes, use_gpus)
    if not devices:
        what = "GPU" if use_gpus else "CPU"
        raise InputError(f"no {what} in the cluster (nodes: {len(nodes)}): add a node, or set device=cpu")
    by_id = {node.node_id: node for node in nodes}
    if len({device.node for device in devices}) == 1 and not use_gpus:
        only = by_id[devices[0].node]
        return {m.name: Slot(only.node_id, only.address, None, 0.0) for group in members.values() for m in group}
    kinds = sorted({device.accelerator for device in devices})
    stages = {kind: by_member(costs(kind), members) for kind in kinds}
    whole = {kind: sum(stage.seconds(batch) for stage in stages[kind]) for kind in kinds}
    devices = [
        Device(d.node, d.index, d.accelerator, whole[kinds[0]] / whole[d.accelerator], UNLIMITED_BYTES, d.spot)
        for d in devices
    ]
    steady = any(not device.spot for device in devices)
    by_name = {member.name: member for group in members.values() for member in group}
    numbers = {(device.node, device.index): number for number, device in enumerate(devices)}

    def allowed(actor: str, device: Device) -> bool:
        if actor == IMAGE_STAGE:
            return not device.spot or not steady
        member = by_name[actor]  # each replica has its own part of the devices, so that no two share one
        number = numbers[device.node, device.index]
        return len(devices) < member.count or number % member.count == member.index

    rules = Constraints(cut=False, allowed=allowed)
    plan = make_plan(stages[kinds[0]], devices, batch, rules)
    crowd = Counter(replica.device for replica in plan.replicas)
    seats = {}
    for replica in plan.replicas:
        node = by_id[plan.devices[replica.device].node]
        share = RESOLUTION // crowd[replica.device] / RESOLUTION
        seats[replica.stage] = Slot(
            node.node_id,
            node.address,
            plan.devices[replica.device].index if use_gpus else None,
            share if use_gpus else 0.0,
        )
    return seats


def by_member(costs: Sequence[StageCost], members: Mapping[str, Sequence[StageReplica]]) -> list[StageCost]:
    """A replica does everything but its images' share as the whole stage does."""
    return [
        replace(
            cost, name=member.name, image_s=cost.image_s / member.count, image_bytes=cost.image_bytes // member.count
        )
        for cost in costs
        for member in members[cost.name]
    ]


def devices_of(nodes: Sequence[Node], use_gpus: bool) -> list[Device]:
    """One for every whole GPU, or for every core (at least one where a node offers any part of one)."""
    devices = []
    for node in nodes:
        count = int(node.gpus) if use_gpus else max(int(node.cpus), int(node.cpus > 0))
        known = node.accelerator if node.accelerator in ACCELERATORS else "H100"
        kind = known if use_gpus else CPU
        devices += [Device(node.node_id, i, kind, 1.0, UNLIMITED_BYTES, node.spot) for i in range(count)]
    return devices
