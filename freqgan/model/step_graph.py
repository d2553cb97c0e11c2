"""One training step as a list of calls, the same for every executor.

With one cycle every GAN is stepped once, in the order of the chain, and the image stage last. With T
cycles the chain first runs T - 1 times forward only, each GAN seeing the GANs before it from the same
pass and those after it from the pass before; the last pass trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from freqgan.model.plan import BandPlan
from freqgan.model.stage_names import IMAGE_STAGE


@dataclass(frozen=True)
class StageCall:
    """One call of one stage; ``inputs`` are the (GAN, pass) whose outputs it takes.

    A band's step also takes what the image stage told it ``feedback.lag`` steps ago, where there is feedback.
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
