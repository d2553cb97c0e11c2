"""Which stage lives on which device of a cluster that is there: a plan of whole stages, as slots for actors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cluster.planning.bin_packing import make_plan
from cluster.planning.devices import ACCELERATORS, CPU, Device
from cluster.planning.plan import Assignment, Constraints, Plan
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica
from freqgan.errors import InputError
from freqgan.model.stage_names import IMAGE_STAGE

UNLIMITED_BYTES = 2**60
RESOLUTION = 10_000
"""Ray knows shares of a GPU in steps of 1/10,000."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster with what it can give.

    Attributes:
        node_id: Ray's name of it.
        address: its IP address.
        cpus: cores that it offers.
        gpus: GPUs that it offers.
        accelerator: the type of its GPUs as Ray calls it, or nothing.
        spot: it may be taken away at any time.
        port: where its part of Ray listens.

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
    """The place of one actor: a node, and which of the node's GPUs and how much of it (None and 0 on a CPU).

    Which GPU that really is, Ray chooses; actors with the same number share one.
    """

    node_id: str
    address: str
    gpu: int | None
    gpu_share: float


def place(costs: Callable[[str], Sequence[StageCost]], nodes: Sequence[Node], batch: int, *, use_gpus: bool,
          replicas: Mapping[str, Sequence[StageReplica]],
          machines: Mapping[str, str] = MappingProxyType({})) -> dict[str, Slot]:  # fmt: skip
    """Return a slot for every actor, by its name, so that the busiest device is as little busy as can be.

    The image stage, which all others wait for, stays off spot machines where there are others; replicas of one stage
    never share a device where there are enough of them.

    Args:
        costs: returns those of the stages on a type of device; called only where there is a choice.
        nodes: those that are alive.
        batch: images of a step.
        use_gpus: place by GPUs, on nodes that have some.
        replicas: the actors of every stage, in the order of the chain.
        machines: addresses of the nodes that stages should be on, by name; one that is not there does not count.

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
        return {r.name: Slot(only.node_id, only.address, None, 0.0) for group in replicas.values() for r in group}
    kinds = sorted({device.accelerator for device in devices})
    stages = {kind: costs_by_replica(costs(kind), replicas) for kind in kinds}
    whole = {kind: sum(stage.seconds(batch) for stage in stages[kind]) for kind in kinds}
    devices = [
        Device(d.node, d.index, d.accelerator, whole[kinds[0]] / whole[d.accelerator], UNLIMITED_BYTES, d.spot)
        for d in devices
    ]
    steady = any(not device.spot for device in devices)
    by_name = {replica.name: replica for group in replicas.values() for replica in group}
    numbers = {(device.node, device.index): number for number, device in enumerate(devices)}

    there = {by_id[device.node].address for device in devices}
    wanted = {name: address for name, address in machines.items() if address in there}

    def allowed(actor: str, device: Device) -> bool:
        address = wanted.get(IMAGE_STAGE if actor == IMAGE_STAGE else by_name[actor].stage)
        if address is not None:
            return by_id[device.node].address == address
        if actor == IMAGE_STAGE:
            return not device.spot or not steady
        replica = by_name[actor]  # each replica has its own part of the devices, so that no two share one
        number = numbers[device.node, device.index]
        return len(devices) < replica.count or number % replica.count == replica.index

    plan = make_plan(stages[kinds[0]], devices, batch, Constraints(cut=False, allowed=allowed))
    return {whole.stage: _slot(plan, whole, by_id, use_gpus) for whole in plan.replicas}


def _slot(plan: Plan, assignment: Assignment, nodes: Mapping[str, Node], use_gpus: bool) -> Slot:
    """Return the slot of an actor, which has an equal share of its GPU with all others there."""
    device = plan.devices[assignment.device]
    node = nodes[device.node]
    if not use_gpus:
        return Slot(node.node_id, node.address, None, 0.0)
    return Slot(node.node_id, node.address, device.index, gpu_share(len(plan.on(assignment.device))))


def gpu_share(actors: int) -> float:
    """Return what each of so many actors has of a GPU, rounded down to what Ray can count."""
    return RESOLUTION // actors / RESOLUTION


def costs_by_replica(costs: Sequence[StageCost], replicas: Mapping[str, Sequence[StageReplica]]) -> list[StageCost]:
    """Return the cost of every replica: what does not depend on images is that of the whole stage, the rest a share."""
    return [
        replace(
            cost, name=replica.name, image_s=cost.image_s / replica.count, image_bytes=cost.image_bytes // replica.count
        )
        for cost in costs
        for replica in replicas[cost.name]
    ]


def devices_of(nodes: Sequence[Node], use_gpus: bool) -> list[Device]:
    """Return a device for every whole GPU, or for every core (at least one where a node offers any part of one)."""
    devices = []
    for node in nodes:
        count = int(node.gpus) if use_gpus else max(int(node.cpus), int(node.cpus > 0))
        known = node.accelerator if node.accelerator in ACCELERATORS else "H100"
        kind = known if use_gpus else CPU
        devices += [Device(node.node_id, i, kind, 1.0, UNLIMITED_BYTES, node.spot) for i in range(count)]
    return devices
