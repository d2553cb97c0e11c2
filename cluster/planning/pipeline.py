"""The calls of a step as tasks on the devices of a plan: what the simulation runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cluster.planning.device_pool import Pool
from cluster.planning.devices import CPU
from cluster.planning.plan import Assignment, Plan
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import output_bytes, rows_of
from cluster.run.settings import RunSettings
from freqgan.model.needs import feedback_receivers
from freqgan.model.step_graph import StageCall, step_graph

FORWARD_SHARE = 1 / 3
"""Of the time of a step, for a pass that only looks ahead."""


@dataclass(frozen=True)
class Part:
    """What one replica does of a call: ``seconds`` of work in the pool of its device."""

    pool: str
    seconds: float


@dataclass(frozen=True)
class Transfer:
    """``images`` rows of the output of one replica (``part`` of its stage) that go from node to node."""

    part: int
    sender: str
    target: str
    images: int


class Pipeline:
    """The calls of a step by their place in the step graph, and what each needs and passes on.

    Args:
        settings: of the run.
        plan: which device does what.
        costs: by stage, those the plan was made for.
        call_s: seconds of a device for a call beside its arithmetic.

    Attributes:
        calls: of one step, in an order in which every input exists before it is taken.
        parts: of every call, one for each replica of its stage.
        readers: of every call, the calls of the same step that take its output.
        fed_back: the calls that take what the image stage said some steps ago.
        window: steps that may be under way at a time.
        lag: steps after which feedback is taken.

    """

    def __init__(self, settings: RunSettings, plan: Plan, costs: Mapping[str, StageCost], call_s: float) -> None:
        self.plan, self.window, self.lag = plan, settings.window, settings.feedback.lag
        self.calls: tuple[StageCall, ...] = step_graph(settings)
        self.parts = [
            [self._part(call, replica, costs[call.stage], call_s) for replica in plan.by_stage[call.stage]]
            for call in self.calls
        ]
        self.readers = self._readers()
        receivers = feedback_receivers(settings)
        self.fed_back = [
            index for index, call in enumerate(self.calls) if call.kind == "step" and call.stage in receivers
        ]
        self._image_bytes = {gan.name: output_bytes(settings, gan.name) for gan in settings.band_plan().gans}
        self.transfers = cache(self._transfers)

    def pools(self, contention: float) -> dict[str, Pool]:
        """Return a pool for every device that is used: a GPU is one of its own, the cores of a node are one together.

        ``contention``: how many times longer a task takes on a core while all cores of its node are busy.
        """
        pools = {self._pool(replica.device): Pool(1, 1.0) for replica in self.plan.replicas}
        cores = Counter(device.node for device in self.plan.devices if device.accelerator == CPU)
        return pools | {node: Pool(count, contention) for node, count in cores.items()}

    def input_count(self, index: int, step: int) -> int:
        """Return how many things call ``index`` of ``step`` waits for: outputs, its own step before, feedback."""
        takes_feedback = index in self.fed_back and step >= self.lag
        return len(self.calls[index].inputs) + (step > 0) + takes_feedback

    def transfer_bytes(self, transfer: Transfer, gan: str) -> float:
        """Return the size of a transfer of sub-images of ``gan``, or of feedback on them."""
        return transfer.images * self._image_bytes[gan]

    def _pool(self, device: int) -> str:
        chosen = self.plan.devices[device]
        return chosen.node if chosen.accelerator == CPU else chosen.name

    def _part(self, call: StageCall, replica: Assignment, cost: StageCost, call_s: float) -> Part:
        share = 1.0 if call.kind == "step" else FORWARD_SHARE
        seconds = share * cost.seconds(replica.images) / self.plan.devices[replica.device].speed
        return Part(self._pool(replica.device), seconds + call_s)

    def _readers(self) -> list[list[int]]:
        place = {(call.stage, call.pass_number): i for i, call in enumerate(self.calls)}
        readers: list[list[int]] = [[] for _ in self.calls]
        for i, call in enumerate(self.calls):
            for key in call.inputs:
                readers[place[key]].append(i)
        return readers

    def _transfers(self, source: str, reader: str) -> list[Transfer]:
        """Return what replicas of stage ``source`` send to other nodes: each part with a row that ``reader`` needs."""
        rows, nodes = {}, {}
        for stage in (source, reader):
            rows[stage] = list(rows_of(self.plan.by_stage[stage]))
            nodes[stage] = [self.plan.devices[replica.device].node for replica in self.plan.by_stage[stage]]
        needed = {
            (part, sender, target, end - start)
            for part, ((start, end), sender) in enumerate(zip(rows[source], nodes[source], strict=True))
            for (first, last), target in zip(rows[reader], nodes[reader], strict=True)
            if sender != target and start < last and first < end
        }
        return [Transfer(*transfer) for transfer in sorted(needed)]
