"""Who moves when machines come or go: as few as it takes, since whoever stays keeps its state and its time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.planning.placement import RESOLUTION, Node, Slot, by_member, devices_of
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica
from freqgan.model.stage_names import IMAGE_STAGE

FEWEST_GAIN = 0.1
"""Of the time of a step, for which a pipeline that runs is stopped to be arranged anew."""
MOST_ROUNDS = 1000
POWER = 8
"""Of busy times, whose sum is made less: nearly their maximum, but it also shows what does not move that yet."""

Place = tuple[str, int | None]
"""A node and one of its GPUs, or None for all of its cores together."""


@dataclass(frozen=True)
class _Room:
    """What a place offers: ``width`` actors work at a time, each at ``speed``."""

    node: Node
    speed: float
    width: int


def rebalance(
    seats: Mapping[str, Slot],
    costs: Callable[[str], Sequence[StageCost]],
    nodes: Sequence[Node],
    batch: int,
    *,
    members: Mapping[str, Sequence[StageReplica]],
) -> dict[str, Slot] | None:
    """New seats for those actors that should move, by name; empty where all should stay.

    Those whose node is not among ``nodes`` have to. Others move, one at a time and always off the busiest place, only
    where that shortens a step by a tenth at least. A GPU takes newcomers only when nobody sits on it: shares of a GPU
    are given once.

    Args:
        seats: of all actors as they are, all on GPUs or all on cores.
        costs: of the stages on a type of device, by its name.
        nodes: that can be used now.
        batch: images of a step.
        members: the actors of every stage.

    Returns:
        None where somebody has to move and there is no place: all must be placed anew.

    """
    return _Arrangement(seats, costs, nodes, batch, members).rebalance()


class _Arrangement:
    """Actors on places, as they are and as they could be."""

    def __init__(
        self,
        seats: Mapping[str, Slot],
        costs: Callable[[str], Sequence[StageCost]],
        nodes: Sequence[Node],
        batch: int,
        members: Mapping[str, Sequence[StageReplica]],
    ) -> None:
        self.seats, self.use_gpus = seats, any(seat.gpu is not None for seat in seats.values())
        self.stage_of = {member.name: member.stage for group in members.values() for member in group}
        self.rooms, self.seconds = self._rooms(costs, nodes, batch, members)
        self.at: dict[str, Place] = {
            name: (seat.node_id, seat.gpu) for name, seat in seats.items() if (seat.node_id, seat.gpu) in self.rooms
        }
        self.taken = set(self.at.values()) if self.use_gpus else set[Place]()
        self.steady = any(not room.node.spot for room in self.rooms.values())

    def rebalance(self) -> dict[str, Slot] | None:
        """See :func:`rebalance`."""
        homeless = sorted(self.seats.keys() - self.at.keys(), key=lambda name: (-self.seconds[name], name))
        for name in homeless:
            place = min(self._allowed(name), key=lambda p: (self._busy_s({**self.at, name: p}, p), p), default=None)
            if place is None:
                return None
            self.at[name] = place
        before = dict(self.at)
        self._improve()
        if self._step_s(self.at) > (1 - FEWEST_GAIN) * self._step_s(before):
            self.at = before
        return self._moved()

    def _rooms(
        self,
        costs: Callable[[str], Sequence[StageCost]],
        nodes: Sequence[Node],
        batch: int,
        members: Mapping[str, Sequence[StageReplica]],
    ) -> tuple[dict[Place, _Room], dict[str, float]]:
        """Every place, and the seconds of a step of every actor on the first type of device (of speed 1)."""
        devices, by_id = devices_of(nodes, self.use_gpus), {node.node_id: node for node in nodes}
        kinds = sorted({device.accelerator for device in devices})
        stages = {kind: by_member(costs(kind), members) for kind in kinds}
        whole = {kind: sum(stage.seconds(batch) for stage in stages[kind]) for kind in kinds}
        widths: Counter[Place] = Counter()
        rooms: dict[Place, _Room] = {}
        for device in devices:
            place: Place = (device.node, device.index if self.use_gpus else None)
            widths[place] += 1
            speed = whole[kinds[0]] / whole[device.accelerator]
            rooms[place] = _Room(by_id[device.node], speed, widths[place])
        seconds = {stage.name: stage.seconds(batch) for stage in stages[kinds[0]]} if kinds else {}
        return rooms, seconds or dict.fromkeys(self.seats, 0.0)

    def _allowed(self, name: str) -> list[Place]:
        """Where ``name`` may go: free places, no spot machine for the image stage, no replica beside another."""
        free = [place for place in self.rooms if place not in self.taken]
        if name == IMAGE_STAGE and self.steady:
            free = [place for place in free if not self.rooms[place].node.spot]
        others = {p for n, p in self.at.items() if n != name and self.stage_of[n] == self.stage_of[name]}
        return [place for place in free if place not in others] or free

    def _busy_s(self, at: Mapping[str, Place], place: Place) -> float:
        """Seconds of a step at ``place``: all work by all cores, or the longest actor's by one."""
        times = [self.seconds[name] for name, where in at.items() if where == place]
        room = self.rooms[place]
        return max(sum(times) / room.width, max(times, default=0.0)) / room.speed

    def _step_s(self, at: Mapping[str, Place]) -> float:
        return max(self._busy_s(at, place) for place in set(at.values())) if at else 0.0

    def _improve(self) -> None:
        """One move at a time, the one that lowers the sum of powers of the busy times most, as long as one does."""
        for _ in range(MOST_ROUNDS):
            best: tuple[float, str, Place] | None = None
            for name in sorted(self.at):
                here = self.at[name]
                for place in self._allowed(name):
                    gain = self._gain(name, here, place) if place != here else 0.0
                    if gain > 1e-9 and (best is None or gain > best[0]):
                        best = gain, name, place
            if best is None:
                return
            self.at[best[1]] = best[2]

    def _gain(self, name: str, here: Place, there: Place) -> float:
        after = {**self.at, name: there}
        unit = self._step_s(self.at)
        return sum(
            (self._busy_s(self.at, p) / unit) ** POWER - (self._busy_s(after, p) / unit) ** POWER for p in (here, there)
        )

    def _moved(self) -> dict[str, Slot]:
        """The seats of those who are not where they were."""
        crowd: dict[Place, int] = defaultdict(int)
        for place in self.at.values():
            crowd[place] += 1
        found = {}
        for name, (node_id, gpu) in self.at.items():
            old = self.seats[name]
            if (old.node_id, old.gpu) != (node_id, gpu):
                share = RESOLUTION // crowd[node_id, gpu] / RESOLUTION if self.use_gpus else 0.0
                found[name] = Slot(node_id, self.rooms[node_id, gpu].node.address, gpu, share)
        return found
