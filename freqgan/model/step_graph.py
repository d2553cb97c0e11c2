"""One training step as a list of calls, the same for every executor.

With one cycle every expert is stepped once, in the order of the chain, and the image stage last; the jointly trained
system is one stage and one call. With T
cycles the chain first runs T - 1 times forward only, each GAN seeing the GANs before it from the same
pass and those after it from the pass before; the last pass trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from freqgan.model.needs import stage_needs, stages_with_output
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE

Output = TypeVar("Output")


@dataclass(frozen=True)
class StageCall:
    """One call of one stage; ``inputs`` are the (GAN, pass) whose outputs it takes.

    A band's step also takes the image stage's gradient of ``feedback.lag`` steps ago, where there is feedback.
    ``has_output`` is whether another call, or another stage of the next step, takes what this one gives.
    """

    stage: str
    kind: Literal["forward", "step"]
    pass_number: int
    inputs: tuple[tuple[str, int], ...]
    has_output: bool = True


def step_graph(settings: ModelSettings) -> tuple[StageCall, ...]:
    """Return the calls of one step in an order in which every input exists before it is taken.

    A stage that needs nothing of others, see :mod:`freqgan.model.needs`, is called with no inputs.
    """
    plan, needs = settings.band_plan(), stage_needs(settings)
    taken = stages_with_output(settings)
    calls = []
    for pass_number in range(1, plan.cycles + 1):
        last = pass_number == plan.cycles
        for gan in plan.gans:
            if gan.name not in needs or (not last and gan.name not in taken):
                continue
            wanted = needs[gan.name].outputs
            inputs = [(source.name, pass_number) for source in plan.sources(gan) if source.name in wanted]
            if pass_number > 1:
                ring = plan.sources(gan, ring=True)
                inputs += [(source.name, pass_number - 1) for source in ring if source.name in wanted]
            kind: Literal["forward", "step"] = "step" if last else "forward"
            calls.append(StageCall(gan.name, kind, pass_number, tuple(inputs), gan.name in taken))
    if FUSION_STAGE in needs:
        calls.append(StageCall(FUSION_STAGE, "step", plan.cycles, (), has_output=False))
    if IMAGE_STAGE in needs:
        everything = tuple((name, plan.cycles) for name in needs[IMAGE_STAGE].outputs)
        calls.append(StageCall(IMAGE_STAGE, "step", plan.cycles, everything, settings.feeds_back))
    return tuple(calls)


def run_step(
    graph: Iterable[StageCall],
    run_call: Callable[[StageCall, dict[str, Output]], Output | None],
    outputs: dict[tuple[str, int], Output] | None = None,
) -> None:
    """Run every call of ``graph`` in order.

    Args:
        graph: the calls of one step, as :func:`step_graph` gives them.
        run_call: runs one call with its inputs by GAN, in the order of ``StageCall.inputs``; returns what other calls
            take of it, or None where none does.
        outputs: by (stage, pass); filled with what the calls return. A new dictionary if not given.

    """
    outputs = {} if outputs is None else outputs
    for call in graph:
        inputs = {name: outputs[name, pass_number] for name, pass_number in call.inputs}
        output = run_call(call, inputs)
        if output is not None:
            outputs[call.stage, call.pass_number] = output
