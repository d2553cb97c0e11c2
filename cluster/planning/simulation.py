"""A discrete-event simulation of the pipeline: what a plan gives with windows, links and failures.

Time runs from event to event. A call of a stage may run when what it takes has come: outputs of the same step over the
links, what the image stage said ``feedback.lag`` steps ago, and the stage's own step before. A step may begin when the
step ``window`` before it is finished by all. A device runs one call at a time, in the order in which they become ready;
the cores of a node are a pool, and slow each other down. A stage with replicas is done when the last of them is.

A device that fails is gone for a while; a stage of one replica then runs the steps since its last snapshot once more,
a stage of several gets its state from one that lives.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.planning.device_pool import Pool, Task
from cluster.planning.devices import CPU
from cluster.planning.plan import Plan
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import output_bytes, rows_of
from cluster.run.settings import RunSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.model.step_graph import StageCall, step_graph

HOUR_S = 3600.0
WARM_UP = 0.25
"""Share of the simulated steps that fill the pipeline and are not counted."""


@dataclass(frozen=True)
class Conditions:
    """What the plan runs under.

    Attributes:
        link_bytes_per_s: what a node can send.
        latency_s: from node to node.
        call_s: of a device for a call beside its arithmetic: what Ray and the copies take. Measured on two machines,
            from the end of one stage to the start of the next: 4.3 and 6.1 ms; of all cores together, 6 ms a call.
        crowding: how many times more of a core a stage takes in a pipeline that keeps all cores busy than alone.
        failures_per_device_hour: at random, independent of each other.
        restart_s: from a failure until the stage is there again with its last snapshot.
        snapshot_every: steps between snapshots of a stage.

    """

    link_bytes_per_s: float = 1.25e9
    latency_s: float = 0.5e-3
    call_s: float = 5e-3
    contention: float = 1.0
    failures_per_device_hour: float = 0.0
    restart_s: float = 5.0
    snapshot_every: int = 50


@dataclass(frozen=True)
class Outcome:
    """``lost``: device seconds of work done twice or thrown away, as a share of all work."""

    images_per_s: float
    lost: float
    failures: int
    seconds: float


def simulate(
    settings: RunSettings,
    plan: Plan,
    costs: Mapping[str, StageCost],
    conditions: Conditions,
    steps: int = 200,
    seed: int = 0,
) -> Outcome:
    """Runs ``steps`` steps of ``plan``; ``costs`` by stage are those the plan was made for."""
    simulation = _Simulation(settings, plan, costs, conditions, steps, random.Random(seed))
    return simulation.run()


class _Simulation:
    def __init__(
        self,
        settings: RunSettings,
        plan: Plan,
        costs: Mapping[str, StageCost],
        conditions: Conditions,
        steps: int,
        rng: random.Random,
    ) -> None:
        self.settings, self.plan, self.conditions, self.steps, self.rng = settings, plan, conditions, steps, rng
        self.calls: tuple[StageCall, ...] = step_graph(settings.band_plan())
        self.parts = [self._parts(call, costs) for call in self.calls]
        self.readers = self._readers()
        self.told = [
            index
            for index, call in enumerate(self.calls)
            if settings.feeds_back and call.kind == "step" and call.stage != IMAGE_STAGE
        ]
        self.sizes = {gan.name: output_bytes(settings, gan.name) for gan in settings.band_plan().gans}
        self._known_transfers: dict[tuple[str, str], list[tuple[int, str, str, int]]] = {}
        self.pools = self._pools()
        self.events: list[tuple[float, int, str, object]] = []
        self.count = 0
        self.now = 0.0
        self.waiting: dict[tuple[int, int], int] = {}
        self.left: dict[tuple[int, int], int] = {}
        self.link_free_s: dict[str, float] = defaultdict(float)
        self.finished_calls: dict[int, int] = defaultdict(int)
        self.finished_s: dict[int, float] = {}
        self.opened = self.failures = 0
        self.lost_s = self.worked_s = 0.0

    # -- the plan as tasks ---------------------------------------------------------------------

    def _pools(self) -> dict[str, Pool]:
        pools = {self._pool(replica.device): Pool(1, 1.0) for replica in self.plan.replicas}
        cores = Counter(device.node for device in self.plan.devices if device.accelerator == CPU)
        return pools | {node: Pool(count, self.conditions.contention) for node, count in cores.items()}

    def _pool(self, device: int) -> str:
        chosen = self.plan.devices[device]
        return chosen.node if chosen.accelerator == CPU else chosen.name

    def _parts(self, call: StageCall, costs: Mapping[str, StageCost]) -> list[tuple[str, str, float]]:
        """(pool, node, seconds) of every replica; a pass that only looks ahead is a third of a step."""
        share = 1.0 if call.kind == "step" else 1 / 3
        return [
            (
                self._pool(replica.device),
                self.plan.devices[replica.device].node,
                share * costs[call.stage].seconds(replica.images) / self.plan.devices[replica.device].speed
                + self.conditions.call_s,
            )
            for replica in self.plan.by_stage[call.stage]
        ]

    def _readers(self) -> list[list[int]]:
        """The calls that take the output of each call, in the same step."""
        place = {(call.stage, call.pass_number): i for i, call in enumerate(self.calls)}
        readers: list[list[int]] = [[] for _ in self.calls]
        for i, call in enumerate(self.calls):
            for key in call.inputs:
                readers[place[key]].append(i)
        return readers

    def _inputs(self, index: int, step: int) -> int:
        """How many things call ``index`` of ``step`` waits for: outputs, its own step before, feedback."""
        call = self.calls[index]
        told = index in self.told and step >= self.settings.feedback.lag
        return len(call.inputs) + (step > 0) + told

    # -- events --------------------------------------------------------------------------------

    def _at(self, time_s: float, kind: str, what: object) -> None:
        self.count += 1
        heapq.heappush(self.events, (time_s, self.count, kind, what))

    def run(self) -> Outcome:
        """Until all steps are finished."""
        if self.conditions.failures_per_device_hour > 0:
            for pool in self.pools:
                self._expect_failure(pool)
        self._open_steps()
        while len(self.finished_s) < self.steps:
            self.now, _, kind, what = heapq.heappop(self.events)
            if kind == "input":
                assert isinstance(what, tuple)
                self._input(*what)
            elif kind == "done":
                assert isinstance(what, tuple)
                self._done(*what)
            elif kind == "fail":
                self._fail(str(what))
            else:
                self.pools[str(what)].is_down = False
                self._expect_failure(str(what))
                self._start(str(what))
        first = int(WARM_UP * self.steps)
        seconds = self.finished_s[self.steps - 1] - (self.finished_s[first - 1] if first else 0.0)
        rate = (self.steps - first) * self.plan.batch / seconds
        return Outcome(rate, self.lost_s / (self.worked_s + self.lost_s), self.failures, self.now)

    def _open_steps(self) -> None:
        """Lets steps begin, ``window`` of them beyond those that all stages have finished."""
        while self.opened < min(self.steps, len(self.finished_s) + self.settings.window):
            step, self.opened = self.opened, self.opened + 1
            for index in range(len(self.calls)):
                key = step, index
                self.waiting[key] = self.waiting.get(key, 0) + self._inputs(index, step)
                if self.waiting[key] == 0:
                    self._ready(step, index)

    def _input(self, step: int, index: int) -> None:
        """One thing that call ``index`` of ``step`` waits for has come; it may come before the step is opened."""
        key = step, index
        self.waiting[key] = self.waiting.get(key, 0) - 1
        if self.waiting[key] == 0 and step < self.opened:
            self._ready(step, index)

    def _ready(self, step: int, index: int) -> None:
        del self.waiting[step, index]
        self.left[step, index] = len(self.parts[index])
        for pool, _, seconds in self.parts[index]:
            self.pools[pool].queue.append(Task(step, index, pool, seconds))
            self._start(pool)

    def _start(self, pool: str) -> None:
        for end_s, task in self.pools[pool].start(self.now):
            self._at(end_s, "done", (task, task.attempt))

    def _done(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt:
            return  # its device failed meanwhile, or became faster or slower
        self.pools[task.pool].finish(task, self.now)
        self.worked_s += task.seconds
        self._start(task.pool)
        key = task.step, task.call
        self.left[key] -= 1
        if self.left[key]:
            return
        del self.left[key]
        self._pass_on(task.step, task.call)
        self.finished_calls[task.step] += 1
        if self.finished_calls[task.step] == len(self.calls):
            del self.finished_calls[task.step]
            self.finished_s[len(self.finished_s)] = self.now
            self._open_steps()

    def _pass_on(self, step: int, index: int) -> None:
        call = self.calls[index]
        if step + 1 < self.steps:
            self._at(self.now, "input", (step + 1, index))
        arrivals: dict[tuple[int, str], float] = {}
        for reader in self.readers[index]:
            self._at(self._arrival_s(call.stage, call.stage, reader, arrivals), "input", (step, reader))
        later = step + self.settings.feedback.lag
        if call.stage == IMAGE_STAGE and later < self.steps:
            for reader in self.told:
                arrival_s = self._arrival_s(IMAGE_STAGE, self.calls[reader].stage, reader, {})
                self._at(arrival_s, "input", (later, reader))

    def _arrival_s(self, source: str, about: str, reader: int, arrivals: dict[tuple[int, str], float]) -> float:
        """When all that ``reader`` needs of ``source`` is there; ``about`` is the GAN whose sub-images it is about.

        ``arrivals`` by part of the source and node: what has come to a node for one reader is there for all.
        """
        latest_s = self.now
        for part, sender, target, images in self._transfers(source, self.calls[reader].stage):
            if (part, target) not in arrivals:
                start_s = max(self.link_free_s[sender], self.now)
                self.link_free_s[sender] = start_s + images * self.sizes[about] / self.conditions.link_bytes_per_s
                arrivals[part, target] = self.link_free_s[sender] + self.conditions.latency_s
            latest_s = max(latest_s, arrivals[part, target])
        return latest_s

    def _transfers(self, source: str, reader: str) -> list[tuple[int, str, str, int]]:
        """(part of the source, its node, another node, images): parts with a row that ``reader`` needs there."""
        if (source, reader) not in self._known_transfers:
            rows = {stage: list(rows_of(self.plan.by_stage[stage])) for stage in (source, reader)}
            nodes = {
                stage: [self.plan.devices[replica.device].node for replica in self.plan.by_stage[stage]]
                for stage in (source, reader)
            }
            self._known_transfers[source, reader] = sorted(
                {
                    (part, sender, target, end - start)
                    for part, ((start, end), sender) in enumerate(zip(rows[source], nodes[source], strict=True))
                    for (first, last), target in zip(rows[reader], nodes[reader], strict=True)
                    if sender != target and start < last and first < end
                }
            )
        return self._known_transfers[source, reader]

    # -- failures ------------------------------------------------------------------------------

    def _expect_failure(self, pool: str) -> None:
        if self.conditions.failures_per_device_hour > 0:
            rate = self.pools[pool].capacity * self.conditions.failures_per_device_hour / HOUR_S
            self._at(self.now + self.rng.expovariate(rate), "fail", pool)

    def _fail(self, pool: str) -> None:
        """Work begun is lost; the device comes back after the restart and what its stages must do again."""
        self.failures += 1
        again_s = 0.0
        self.lost_s += self.pools[pool].fail(self.now)
        for index, parts in enumerate(self.parts):
            for part_pool, _, seconds in parts:
                if part_pool == pool and len(parts) == 1 and self.calls[index].kind == "step":
                    again_s += (len(self.finished_s) % self.conditions.snapshot_every) * seconds
        self.lost_s += again_s
        self._at(self.now + self.conditions.restart_s + again_s, "back", pool)
