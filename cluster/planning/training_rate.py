"""How many images a second one process trains of several systems, timed beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.planning.profiler import profile_rounds, step_seconds
from cluster.run.settings import RunSettings

ROUNDS = 5
"""Of three steps each, of every system."""


def training_rates(systems: Mapping[str, RunSettings], note: Callable[[str], None]) -> dict[str, float]:
    """Return images per second inside the stages of one process that trains all of them, by system.

    Every system makes a round of steps in turn, so that what slows this machine down meets all of them; of steps with
    penalties, and of those without, the shortest counts. With one thread on a CPU it is processor time, which other
    processes lengthen little: beside three of them rates came out within 1 % of each other, and by medians within 3 %.

    Steps are of noise, with the batch, threads and precision of the settings. Reading images and writing checkpoints is
    left out, as in the ``seconds`` of ``metrics.jsonl``.
    """
    timers = {name: profile_rounds(settings, settings.batch, together=True) for name, settings in systems.items()}
    for name, timer in timers.items():
        note(f"times steps of {name}")
        next(timer)  # it warms up
    rounds = [{name: next(timer) for name, timer in timers.items()} for _ in range(ROUNDS)]
    return {
        name: settings.batch / sum(step_seconds(settings, [by_system[name] for by_system in rounds], min).values())
        for name, settings in systems.items()
    }
