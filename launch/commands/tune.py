"""``freqgan tune``: how the flow experts of a run generate best, by a network that was taught on training images."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table

from cluster.evaluation.sampler_search import SamplerSearch, search_sampler
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import open_checkpoint
from cluster.run.presence import check_data
from freqgan.generation.options import GenerationOptions, options_for
from freqgan.metrics.catalogue import LEARNED_FRECHET
from freqgan.model.expert_settings import GenerationSettings
from launch.console.tables import plain_console
from launch.settings.targets import writable_object

PRINTED_WIDTH = 132


def tune_command(
    run: str,
    data: str | None,
    *,
    evaluations: int,
    count: int,
    seed: int,
    json_file: str | None,
    note: Callable[[str], None],
) -> None:
    """Print what was tried with ``run``, and the options that gave the best images; write ``json_file`` if given.

    Args:
        run: folder of a run with flow experts.
        data: shards of real images; None for those that it was trained on.
        evaluations: passes through the network for a sample, at most.
        count: images generated for each trial.
        seed: of their noise.
        json_file: gets the options and all trials.
        note: is told of every trial.

    Raises:
        InputError: no flow experts, no or too few images, a ``json_file`` that cannot be written.

    """
    target = writable_object("--json", json_file) if json_file is not None else None

    def search(checkpoint: Checkpoint) -> SamplerSearch:
        shards = data if data is not None else checkpoint.settings.data
        check_data(shards, ask_buckets=True)
        return search_sampler(checkpoint, shards, most_evaluations=evaluations, count=count, seed=seed, note=note)

    result = open_checkpoint(run, search, note=note)
    plain_console(PRINTED_WIDTH).print(trials_table(result))
    options = options_for(result.best.generation, result.axes)
    print(f"best: {' '.join(options.arguments)}")
    if target is not None:
        target[0].write(target[1], json.dumps(search_json(result, options), indent=1).encode())


def search_json(search: SamplerSearch, options: GenerationOptions) -> dict[str, Any]:
    """Return {options, count, trials}, the trials in order and with their distance."""
    return {
        "options": options.given,
        "count": search.count,
        "trials": [
            options_for(trial.generation, search.axes).given | {LEARNED_FRECHET: trial.frechet}
            for trial in search.trials
        ],
    }


def trials_table(search: SamplerSearch) -> Table:
    """Return a table with a row per trial in order; the best one is marked."""
    table = Table(title=f"{search.count:,} images each; low is good", box=box.SIMPLE)
    for name in (*search.axes, LEARNED_FRECHET, ""):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in search.trials:
        mark = "best" if trial == search.best else ""
        table.add_row(*(_text(trial.generation, name) for name in search.axes), f"{trial.frechet:.4g}", mark)
    return table


def _text(generation: GenerationSettings, name: str) -> str:
    value = options_for(generation, [name]).given[name]
    return value if isinstance(value, str) else f"{value:g}"
