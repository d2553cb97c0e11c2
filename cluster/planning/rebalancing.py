"""Which actors move when machines come or go: as few as it takes, since one that stays keeps its state and its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.planning.placement import Node, Slot, costs_by_replica, devices_of, gpu_share
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica
from freqgan.model.stage_names import IMAGE_STAGE

FEWEST_GAIN = 0.1
"""Share of the time of a step that must be gained before a pipeline that runs is stopped to be rearranged."""
MOST_ROUNDS = 1000
POWER = 8
"""Power of the busy times whose sum is lowered: nearly their maximum, but it shows what does not change that yet."""

Place = tuple[str, int | None]
"""A node and one of its GPUs, or None for all of its cores together."""


@dataclass(frozen=True)
class _Capacity:
    """What a place offers: ``width`` actors work at a time, each at ``speed``."""

    node: Node
    speed: float
    width: int


def rebalance(
    slots: Mapping[str, Slot],
    costs: Callable[[str], Sequence[StageCost]],
    nodes: Sequence[Node],
    batch: int,
    *,
    replicas: Mapping[str, Sequence[StageReplica]],
) -> dict[str, Slot] | None:
    """Return new slots for those actors that should move, by name; empty where all should stay.

    Those whose node is not among ``nodes`` have to. Others move, one at a time and always off the busiest place, only
    where that shortens a step by a tenth at least. A GPU takes newcomers only when no actor is on it: shares of a GPU
    are given once.

    Args:
        slots: of all actors as they are, all on GPUs or all on cores.
        costs: returns those of the stages on a type of device.
        nodes: those that can be used now.
        batch: images of a step.
        replicas: the actors of every stage.

    Returns:
        None where an actor has to move and there is no place for it: all must be placed anew.

    """
    return _Arrangement(slots, costs, nodes, batch, replicas).rebalance()


class _Arrangement:
    """Actors on places, as they are and as they could be."""

    def __init__(
        self,
        slots: Mapping[str, Slot],
        costs: Callable[[str], Sequence[StageCost]],
        nodes: Sequence[Node],
        batch: int,
        replicas: Mapping[str, Sequence[StageReplica]],
    ) -> None:
        self.slots, self.use_gpus = slots, any(slot.gpu is not None for slot in slots.values())
        self.stage_of = {replica.name: replica.stage for group in replicas.values() for replica in group}
        self.capacities, self.seconds = self._measure(costs, nodes, batch, replicas)
        self.places: dict[str, Place] = {
            name: (slot.node_id, slot.gpu)
            for name, slot in slots.items()
            if (slot.node_id, slot.gpu) in self.capacities
        }
        self.taken = set(self.places.values()) if self.use_gpus else set[Place]()
        self.has_steady = any(not capacity.node.spot for capacity in self.capacities.values())

    def rebalance(self) -> dict[str, Slot] | None:
        """Return the slots of the actors that move, or None, as the function :func:`rebalance` does."""
        homeless = sorted(self.slots.keys() - self.places.keys(), key=lambda name: (-self.seconds[name], name))
        for name in homeless:
            place = min(self._allowed(name), key=lambda p: (self._busy_s({**self.places, name: p}, p), p), default=None)
            if place is None:
                return None
            self.places[name] = place
        before = dict(self.places)
        self._improve()
        if self._step_s(self.places) > (1 - FEWEST_GAIN) * self._step_s(before):
            self.places = before
        return self._new_slots()

    def _measure(
        self,
        costs: Callable[[str], Sequence[StageCost]],
        nodes: Sequence[Node],
        batch: int,
        replicas: Mapping[str, Sequence[StageReplica]],
    ) -> tuple[dict[Place, _Capacity], dict[str, float]]:
        """Return what every place offers, and the seconds of a step of every actor on a device of speed 1."""
        devices, by_id = devices_of(nodes, self.use_gpus), {node.node_id: node for node in nodes}
        kinds = sorted({device.accelerator for device in devices})
        stages = {kind: costs_by_replica(costs(kind), replicas) for kind in kinds}
        whole = {kind: sum(stage.seconds(batch) for stage in stages[kind]) for kind in kinds}
        widths: Counter[Place] = Counter()
        capacities: dict[Place, _Capacity] = {}
        for device in devices:
            place: Place = (device.node, device.index if self.use_gpus else None)
            widths[place] += 1
            speed = whole[kinds[0]] / whole[device.accelerator]
            capacities[place] = _Capacity(by_id[device.node], speed, widths[place])
        seconds = {stage.name: stage.seconds(batch) for stage in stages[kinds[0]]} if kinds else {}
        return capacities, seconds or dict.fromkeys(self.slots, 0.0)

    def _allowed(self, name: str) -> list[Place]:
        """Return where ``name`` may go: free places, no spot machine for the image stage, no replica beside another."""
        free = [place for place in self.capacities if place not in self.taken]
        if name == IMAGE_STAGE and self.has_steady:
            free = [place for place in free if not self.capacities[place].node.spot]
        others = {p for n, p in self.places.items() if n != name and self.stage_of[n] == self.stage_of[name]}
        return [place for place in free if place not in others] or free

    def _busy_s(self, places: Mapping[str, Place], place: Place) -> float:
        """Return the seconds of a step at ``place``: all work by all cores, or the longest actor's by one."""
        times = [self.seconds[name] for name, other in places.items() if other == place]
        capacity = self.capacities[place]
        return max(sum(times) / capacity.width, max(times, default=0.0)) / capacity.speed

    def _step_s(self, places: Mapping[str, Place]) -> float:
        return max(self._busy_s(places, place) for place in set(places.values())) if places else 0.0

    def _improve(self) -> None:
        """Make the move that lowers the sum of powers of the busy times most, again and again, as long as one does."""
        for _ in range(MOST_ROUNDS):
            best: tuple[float, str, Place] | None = None
            for name in sorted(self.places):
                here = self.places[name]
                for place in self._allowed(name):
                    gain = self._gain(name, here, place) if place != here else 0.0
                    if gain > 1e-9 and (best is None or gain > best[0]):
                        best = gain, name, place
            if best is None:
                return
            self.places[best[1]] = best[2]

    def _gain(self, name: str, here: Place, there: Place) -> float:
        after = {**self.places, name: there}
        unit = self._step_s(self.places)
        return sum(
            (self._busy_s(self.places, p) / unit) ** POWER - (self._busy_s(after, p) / unit) ** POWER
            for p in (here, there)
        )

    def _new_slots(self) -> dict[str, Slot]:
        """Return the slots of the actors that are not where they were."""
        actors, slots = Counter(self.places.values()), {}
        for name, (node_id, gpu) in self.places.items():
            old = self.slots[name]
            if (old.node_id, old.gpu) != (node_id, gpu):
                share = gpu_share(actors[node_id, gpu]) if self.use_gpus else 0.0
                slots[name] = Slot(node_id, self.capacities[node_id, gpu].node.address, gpu, share)
        return slots
