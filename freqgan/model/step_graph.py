"""One training step as a list of calls, the same for every executor.

With one cycle every GAN is stepped once, in the order of the chain, and the image stage last. With T
cycles the chain first runs T - 1 times forward only, each GAN seeing the GANs before it from the same
pass and those after it from the pass before; the last pass trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from freqgan.model.plan import BandPlan
from freqgan.model.stage_names import IMAGE_STAGE

Output = TypeVar("Output")


@dataclass(frozen=True)
class StageCall:
    """One call of one stage; ``inputs`` are the (GAN, pass) whose outputs it takes.

    A band's step also takes the image stage's gradient of ``feedback.lag`` steps ago, where there is feedback.
    """

    stage: str
    kind: Literal["forward", "step"]
    pass_number: int
    inputs: tuple[tuple[str, int], ...]


def step_graph(plan: BandPlan) -> tuple[StageCall, ...]:
    """Return the calls of one step in an order in which every input exists before it is taken."""
    calls = []
    for pass_number in range(1, plan.cycles + 1):
        last = pass_number == plan.cycles
        for gan in plan.gans:
            inputs = [(source.name, pass_number) for source in plan.sources(gan)]
            if pass_number > 1:
                inputs += [(source.name, pass_number - 1) for source in plan.sources(gan, ring=True)]
            calls.append(StageCall(gan.name, "step" if last else "forward", pass_number, tuple(inputs)))
    everything = tuple((gan.name, plan.cycles) for gan in plan.gans)
    return (*calls, StageCall(IMAGE_STAGE, "step", plan.cycles, everything))


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
