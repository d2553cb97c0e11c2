"""A discrete-event simulation of the pipeline: what a plan gives with windows, links and failures.

Time runs from event to event. A call of a stage may run when what it takes has come: outputs of the same step over the
links, what the image stage said ``feedback.lag`` steps ago, and the stage's own step before. A step may begin when the
step ``window`` before it is finished by all: nothing else holds back a stage that takes nothing of others. A device
runs one call at a time, in the order in which they become ready; the cores of a node are a pool, and slow each other
down. A stage with replicas is done when the last of them is.

A device that fails is gone for a while; a stage of one replica then runs the steps since its last snapshot once more,
a stage of several gets its state from one that lives.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.planning.device_pool import Task
from cluster.planning.pipeline import Pipeline
from cluster.planning.plan import Plan
from cluster.planning.stage_cost import StageCost
from cluster.run.settings import RunSettings
from freqgan.model.stage_names import IMAGE_STAGE

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
        contention: how many times more of a core a stage takes in a pipeline that keeps all cores busy than alone.
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
    """What a simulation gives.

    Attributes:
        images_per_s: of a full pipeline.
        lost: device seconds of work done twice or thrown away, as a share of all work.
        failures: of devices.
        seconds: that all steps took.

    """

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
    """Return what ``steps`` steps of ``plan`` give.

    Args:
        settings: of the run.
        plan: which device does what.
        costs: by stage, those the plan was made for.
        conditions: links, failures and what a call takes.
        steps: how many are simulated.
        seed: of the failures.

    """
    pipeline = Pipeline(settings, plan, costs, conditions.call_s)
    return _Simulation(pipeline, conditions, steps, random.Random(seed)).run()


@dataclass(frozen=True)
class InputArrived:
    """One thing that a call of ``step`` waits for has come."""

    step: int
    call: int


@dataclass(frozen=True)
class TaskEnded:
    """A task is done, if its attempt is still that."""

    task: Task
    attempt: int


@dataclass(frozen=True)
class PoolFailed:
    """The devices of a pool stop."""

    pool: str


@dataclass(frozen=True)
class PoolRestarted:
    """The devices of a pool are there again."""

    pool: str


Event = InputArrived | TaskEnded | PoolFailed | PoolRestarted


@dataclass
class CallState:
    """What a call of one step still waits for.

    Attributes:
        missing_inputs: below zero while more has come of a step that is not open yet than was expected.
        unfinished_tasks: of the call's replicas, from when it runs.

    """

    missing_inputs: int = 0
    unfinished_tasks: int = 0


class _Simulation:
    def __init__(self, pipeline: Pipeline, conditions: Conditions, steps: int, rng: random.Random) -> None:
        self.pipeline, self.conditions, self.steps, self.rng = pipeline, conditions, steps, rng
        self.pools = pipeline.pools(conditions.contention)
        self.events: list[tuple[float, int, Event]] = []  # by time, and those of one time in the order of their numbers
        self.event_count = 0
        self.now = 0.0
        self.states: dict[tuple[int, int], CallState] = defaultdict(CallState)
        self.link_free_s: dict[str, float] = defaultdict(float)
        self.finished_calls: dict[int, int] = defaultdict(int)
        self.finished_s: list[float] = []
        self.opened = self.failures = 0
        self.lost_s = self.worked_s = 0.0

    def run(self) -> Outcome:
        """Run from event to event until all steps are finished."""
        for pool in self.pools:
            self._expect_failure(pool)
        self._open_steps()
        while len(self.finished_s) < self.steps:
            self.now, _, event = heapq.heappop(self.events)
            self._handle(event)
        first = int(WARM_UP * self.steps)
        seconds = self.finished_s[self.steps - 1] - (self.finished_s[first - 1] if first else 0.0)
        rate = (self.steps - first) * self.pipeline.plan.batch / seconds
        return Outcome(rate, self.lost_s / (self.worked_s + self.lost_s), self.failures, self.now)

    def _handle(self, event: Event) -> None:
        match event:
            case InputArrived(step, call):
                self._take_input(step, call)
            case TaskEnded(task, attempt):
                if task.attempt == attempt:  # else its device failed meanwhile, or became faster or slower
                    self._finish_task(task)
            case PoolFailed(pool):
                self._fail(pool)
            case PoolRestarted(pool):
                self.pools[pool].is_down = False
                self._expect_failure(pool)
                self._start(pool)

    def _schedule(self, time_s: float, event: Event) -> None:
        self.event_count += 1
        heapq.heappush(self.events, (time_s, self.event_count, event))

    def _open_steps(self) -> None:
        """Let steps begin, ``window`` of them beyond those that all stages have finished."""
        while self.opened < min(self.steps, len(self.finished_s) + self.pipeline.window):
            step, self.opened = self.opened, self.opened + 1
            for index in range(len(self.pipeline.calls)):
                self._expect_inputs(step, index, self.pipeline.input_count(index, step))

    def _take_input(self, step: int, index: int) -> None:
        """Count one input of call ``index`` of ``step``; it may come before the step is opened."""
        self._expect_inputs(step, index, -1)

    def _expect_inputs(self, step: int, index: int, count: int) -> None:
        state = self.states[step, index]
        state.missing_inputs += count
        if state.missing_inputs == 0 and step < self.opened:
            self._run_call(step, index, state)

    def _run_call(self, step: int, index: int, state: CallState) -> None:
        state.unfinished_tasks = len(self.pipeline.parts[index])
        for part in self.pipeline.parts[index]:
            self.pools[part.pool].queue.append(Task(step, index, part.pool, part.seconds))
            self._start(part.pool)

    def _start(self, pool: str) -> None:
        for end_s, task in self.pools[pool].start(self.now):
            self._schedule(end_s, TaskEnded(task, task.attempt))

    def _finish_task(self, task: Task) -> None:
        self.pools[task.pool].finish(task, self.now)
        self.worked_s += task.seconds
        self._start(task.pool)
        state = self.states[task.step, task.call]
        state.unfinished_tasks -= 1
        if state.unfinished_tasks == 0:
            del self.states[task.step, task.call]
            self._finish_call(task.step, task.call)

    def _finish_call(self, step: int, index: int) -> None:
        self._pass_on(step, index)
        self.finished_calls[step] += 1
        if self.finished_calls[step] == len(self.pipeline.calls):
            del self.finished_calls[step]
            self.finished_s.append(self.now)
            self._open_steps()

    def _pass_on(self, step: int, index: int) -> None:
        """Send what call ``index`` of ``step`` gives to those that take it, its own next step among them."""
        call, later = self.pipeline.calls[index], step + self.pipeline.lag
        if step + 1 < self.steps:
            self._schedule(self.now, InputArrived(step + 1, index))
        arrivals: dict[tuple[int, str], float] = {}
        for reader in self.pipeline.readers[index]:
            self._schedule(self._arrival_s(call.stage, call.stage, reader, arrivals), InputArrived(step, reader))
        if call.stage == IMAGE_STAGE and later < self.steps:
            for reader in self.pipeline.fed_back:
                arrival_s = self._arrival_s(IMAGE_STAGE, self.pipeline.calls[reader].stage, reader, {})
                self._schedule(arrival_s, InputArrived(later, reader))

    def _arrival_s(self, source: str, gan: str, reader: int, arrivals: dict[tuple[int, str], float]) -> float:
        """Return when all that call ``reader`` needs of stage ``source`` is there: sub-images of ``gan``, or feedback.

        ``arrivals`` by part of the source and node: what has come to a node for one reader is there for all.
        """
        latest_s = self.now
        for transfer in self.pipeline.transfers(source, self.pipeline.calls[reader].stage):
            key = transfer.part, transfer.target
            if key not in arrivals:
                start_s = max(self.link_free_s[transfer.sender], self.now)
                size_bytes = self.pipeline.transfer_bytes(transfer, gan)
                self.link_free_s[transfer.sender] = start_s + size_bytes / self.conditions.link_bytes_per_s
                arrivals[key] = self.link_free_s[transfer.sender] + self.conditions.latency_s
            latest_s = max(latest_s, arrivals[key])
        return latest_s

    def _expect_failure(self, pool: str) -> None:
        if self.conditions.failures_per_device_hour > 0:
            rate = self.pools[pool].capacity * self.conditions.failures_per_device_hour / HOUR_S
            self._schedule(self.now + self.rng.expovariate(rate), PoolFailed(pool))

    def _fail(self, pool: str) -> None:
        """Lose the work begun; the pool comes back after the restart and what its stages must do again."""
        self.failures += 1
        again_s = 0.0
        self.lost_s += self.pools[pool].fail(self.now)
        for call, parts in zip(self.pipeline.calls, self.pipeline.parts, strict=True):
            for part in parts:
                if part.pool == pool and len(parts) == 1 and call.kind == "step":
                    again_s += (len(self.finished_s) % self.conditions.snapshot_every) * part.seconds
        self.lost_s += again_s
        self._schedule(self.now + self.conditions.restart_s + again_s, PoolRestarted(pool))
