"""What crosses the network in a step of a plan, beside what data-parallel training of the same networks would move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cluster.planning.plan import Assignment, Plan
from cluster.run.settings import RunSettings
from freqgan.model.needs import feedback_receivers
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.model.step_graph import step_graph
from freqgan.sizes import area

FLOAT_BYTES = 4
EXCHANGE_BYTES = {"float32": 4, "float16": 2, "none": 0}


@dataclass(frozen=True)
class Traffic:
    """Bytes of one step that go from one node to another.

    Attributes:
        images: uint8 batches, from the node of the last stage of the chain.
        sub_images: outputs of experts, once for every other node that reads them; of those alone that others need.
        feedback: gradients of the image stage with respect to them.
        replicas: gradients of parameters, between replicas of one stage on several nodes.
        by_node: what each node sends and receives, the greater of the two.
        data_parallel: what data-parallel training of all networks on the same nodes would move.

    """

    images: float
    sub_images: float
    feedback: float
    replicas: float
    by_node: Mapping[str, float]
    data_parallel: float

    @property
    def total(self) -> float:
        """All bytes of the plan."""
        return self.images + self.sub_images + self.feedback + self.replicas


def traffic(settings: RunSettings, plan: Plan, parameters: Mapping[str, int]) -> Traffic:
    """Return the bytes of a step of ``plan``; ``parameters`` is the number of weights by stage.

    An object goes to a node once, however many stages there read it: that is how Ray's object store works. Gradients
    of parameters are reduced in a ring of nodes: each sends and receives 2 (M - 1) / M of them.
    """
    sent: dict[str, float] = defaultdict(float)
    received: dict[str, float] = defaultdict(float)
    moved: dict[str, float] = defaultdict(float)

    def move(kind: str, source: str, target: str, size_bytes: float) -> None:
        if source != target:
            moved[kind] += size_bytes
            sent[source] += size_bytes
            received[target] += size_bytes

    home = _node(plan, list(plan.by_stage.values())[-1][0])
    pixels = settings.image_channels * area(settings.size) * settings.bit_depth // 8
    for node in sorted({_node(plan, replica) for replica in plan.replicas}):
        move("images", home, node, plan.batch * pixels)
    for source, target, size_bytes in _sub_images(settings, plan):
        move("sub_images", source, target, size_bytes)
    receivers = feedback_receivers(settings)
    for stage, replicas in plan.by_stage.items():
        if stage in receivers:
            for node in sorted({_node(plan, replica) for replica in replicas}):
                images = sum(replica.images for replica in replicas if _node(plan, replica) == node)
                move("feedback", home, node, images * output_bytes(settings, stage))
        _ring(sorted({_node(plan, replica) for replica in replicas}), FLOAT_BYTES * parameters[stage], move)
    nodes = sorted({device.node for device in plan.devices})
    greater = {node: max(sent[node], received[node]) for node in nodes}
    alternative = 2 * (len(nodes) - 1) * FLOAT_BYTES * sum(parameters.values())
    return Traffic(moved["images"], moved["sub_images"], moved["feedback"], moved["replicas"], greater, alternative)


def _sub_images(settings: RunSettings, plan: Plan) -> Iterator[tuple[str, str, float]]:
    """Yield (from node, to node, bytes) of outputs: that of a replica to each node that needs a row of it."""
    rows = {stage: list(rows_of(replicas)) for stage, replicas in plan.by_stage.items()}
    needed: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for call in step_graph(settings):
        for reader, (first, last) in zip(plan.by_stage[call.stage], rows[call.stage], strict=True):
            for stage, pass_number in call.inputs:
                for part, (start, end) in enumerate(rows[stage]):
                    if start < last and first < end:
                        needed[stage, pass_number, part].add(_node(plan, reader))
    for (stage, _, part), nodes in needed.items():
        replica = plan.by_stage[stage][part]
        for node in nodes:
            yield _node(plan, replica), node, replica.images * output_bytes(settings, stage)


def rows_of(replicas: tuple[Assignment, ...]) -> Iterator[tuple[int, int]]:
    """Yield the rows of the batch that each replica has: the first, and the one behind the last."""
    start = 0
    for replica in replicas:
        yield start, start + replica.images
        start += replica.images


def exchanged_bytes(settings: RunSettings) -> float:
    """Return the bytes that stages give each other for one image of a step, on whatever nodes: outputs and feedback.

    Each is counted once, as the object store holds it, however many stages take it. It is 0 where every stage trains
    on real bands alone.
    """
    taken = [call.stage for call in step_graph(settings) if call.has_output and call.stage != IMAGE_STAGE]
    return sum(output_bytes(settings, stage) for stage in [*taken, *feedback_receivers(settings)])


def output_bytes(settings: RunSettings, stage: str) -> float:
    """Return the bytes of the output of the expert ``stage`` for one image."""
    gan = settings.band_plan().gan(stage)
    layout = settings.band_layout()
    height, width = layout.band_size(settings.size, gan.bands[0])
    channels = settings.channels * sum(layout.coefficients(band.time) for band in gan.bands)
    return float(EXCHANGE_BYTES[settings.exchange] * channels * height * width)


def _ring(nodes: list[str], size_bytes: float, move: Callable[[str, str, str, float], None]) -> None:
    """Move what a ring reduction of ``size_bytes`` over ``nodes`` sends."""
    for source, target in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        move("replicas", source, target, 2 * (len(nodes) - 1) / len(nodes) * size_bytes)


def _node(plan: Plan, replica: Assignment) -> str:
    return plan.devices[replica.device].node
