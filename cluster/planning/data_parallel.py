"""How long a step takes that devices share among them: each has a part of the batch, all add up their gradients.

The sum is that of a ring or, where latency counts for more, of trees. It goes on during the backward pass as far as it
can, and what is left over prolongs the step: real trainings overlap less. Within a node it is taken to be free.

Sources: P. Patarasuk, X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, Journal of
Parallel and Distributed Computing 69 (2009), for the ring; P. Sanders, J. Speck, J. L. Träff, Two-tree algorithms for
full bandwidth broadcast, reduction and scan, Parallel Computing 35 (2009), for trees.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planning.devices import Device
from cluster.planning.stage_cost import StageCost

BACKWARD_SHARE = 2 / 3
"""Of the time of a step, in which gradients can travel: a forward pass takes half as long as its backward pass."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Sharing:
    """Stages that run one after the other on every device, each with its part of the batch.

    Attributes:
        costs: of the stages at speed 1.
        parameters: of all their networks together.
        batch: images of a step, of all devices.
        image_bytes: of an image as it comes from storage.
        link_bytes_per_s: what a node can send, and receive.
        latency_s: from node to node.
        call_s: of a device for a call beside its arithmetic.

    """

    costs: tuple[StageCost, ...]
    parameters: int
    batch: int
    image_bytes: int
    link_bytes_per_s: float
    latency_s: float
    call_s: float

    def fits(self, devices: Sequence[Device]) -> bool:
        """Return whether every device has the memory for its part."""
        images = -(-self.batch // len(devices))
        wanted = sum(cost.fixed_bytes for cost in self.costs) + images * max(cost.image_bytes for cost in self.costs)
        return all(wanted <= device.memory_bytes for device in devices)

    def step_s(self, devices: Sequence[Device], readers: int = 1, slowdown: float = 1.0) -> float:
        """Return the seconds of a step on ``devices``, all alike.

        Args:
            devices: that share the batch.
            readers: devices of a node that take images over its link at a time, these or others.
            slowdown: how many times longer the arithmetic takes, because others keep the same cores busy.

        """
        images = -(-self.batch // len(devices))
        compute_s = slowdown * sum(cost.seconds(images) for cost in self.costs) / devices[0].speed
        nodes = Counter(device.node for device in devices)
        read_s = max(readers, *nodes.values()) * images * self.image_bytes / self.link_bytes_per_s
        sum_s = all_reduce_s(FLOAT_BYTES * self.parameters, len(nodes), self.link_bytes_per_s, self.latency_s)
        left_s = max(0.0, sum_s - BACKWARD_SHARE * compute_s)
        return max(compute_s + len(self.costs) * self.call_s + left_s, read_s)


def all_reduce_s(size_bytes: float, nodes: int, link_bytes_per_s: float, latency_s: float) -> float:
    """Return the seconds in which ``nodes`` add up ``size_bytes`` that each has: by a ring or by trees.

    In a ring of M every node sends 2 (M - 1) / M of them in 2 (M - 1) turns; in two trees, up and down again, twice all
    of them in 2 log2 M turns.
    """
    if nodes < 2:
        return 0.0
    ring_s = 2 * (nodes - 1) * (size_bytes / nodes / link_bytes_per_s + latency_s)
    trees_s = 2 * (size_bytes / link_bytes_per_s + math.ceil(math.log2(nodes)) * latency_s)
    return min(ring_s, trees_s)
