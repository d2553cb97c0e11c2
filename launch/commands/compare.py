"""``freqgan compare``: several systems trained at equal cost, measured alike, as a table and a page.

Every run is an ordinary ``freqgan train`` of a settings file in the output folder, in a process of its own, and every
measurement an ordinary ``freqgan evaluate``: each line of a table can be had again by hand. What is done is not done
again, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.evaluation.evaluate import check_real, teach_networks
from cluster.run.presence import check_data
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.training.stop_signals import stop_requests
from freqgan.errors import InputError, RunError
from freqgan.metrics.feature_recipe import TUNING_RECIPE
from launch.commands.entrants import (
    SAMPLER_COUNT,
    Comparison,
    Entrant,
    files_of,
    has_flows,
    is_measured,
    next_command,
    scores_of,
)
from launch.commands.systems import COSTS, equal_systems, parse_systems
from launch.pages.comparison import write_page

POLL_S = 0.5
RESUME_EXIT_CODE = 75


def compare(comparison: Comparison, *, note: Callable[[str], None]) -> tuple[int, str]:
    """Train and measure what is missing, then write the table and the page.

    Returns:
        The exit code (0, or 75 when a signal stopped it: the same command goes on) and a line that says what was made.

    Raises:
        InputError: systems, settings or folders that cannot be used.
        RunError: a training or a measurement failed; the message names its log.

    """
    check_data(comparison.settings.data, comparison.held_out, ask_buckets=True)
    if not (comparison.out / COSTS).exists():  # else it has begun, and compares with the shards of before
        check_real(comparison.held_out, comparison.settings, comparison.count)
        if comparison.most_evaluations is not None:
            check_real(comparison.settings.data, comparison.settings, SAMPLER_COUNT)
    open_folder(str(comparison.out)).check_writable()
    comparison.out.mkdir(parents=True, exist_ok=True)
    entrants = entrants_of(comparison, note)
    _teach(comparison, entrants, note)
    with stop_requests() as stopped:
        done = _run_all(comparison, entrants, note, stopped.is_set)
    if not done:
        return RESUME_EXIT_CODE, "stopped: the same command goes on from the checkpoints"
    runs = [scores_of(comparison, entrant) for entrant in entrants]
    return 0, write_page(comparison.out, runs, comparison.count, comparison.minutes)


def entrants_of(comparison: Comparison, note: Callable[[str], None]) -> list[Entrant]:
    """Return every system with every seed, at the cost of the settings that were given."""
    systems = equal_systems(
        comparison.settings, comparison.systems, out=comparison.out, held_out=comparison.held_out,
        minutes=comparison.minutes, note=note,
    )  # fmt: skip
    entrants = []
    for name, system in systems.items():
        for seed in comparison.seeds:
            run = str(comparison.out / f"{name}-{seed}")
            settings = system.settings.model_copy(update={"seed": seed, "run": run})
            entrants.append(Entrant(name, seed, settings, system.cost))
    return entrants


def _teach(comparison: Comparison, entrants: Sequence[Entrant], note: Callable[[str], None]) -> None:
    """Have the networks taught that measurements take: once, not in every process."""
    if comparison.learned and not all(is_measured(comparison, entrant) for entrant in entrants):
        teach_networks(comparison.held_out, comparison.settings, note)
    files = [files_of(comparison, entrant).sampler for entrant in entrants]
    if not all(file is None or file.exists() for file in files):
        teach_networks(comparison.settings.data, comparison.settings, note, [TUNING_RECIPE])


# -- processes -------------------------------------------------------------------------------------


def _run_all(
    comparison: Comparison, entrants: Sequence[Entrant], note: Callable[[str], None], stopped: Callable[[], bool]
) -> bool:
    """Run every missing command, ``jobs`` at a time; False when it was stopped."""
    waiting = [entrant for entrant in entrants if not is_measured(comparison, entrant)]
    running: list[tuple[Entrant, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < comparison.jobs and not stopped():
                entrant = waiting.pop(0)
                command = next_command(comparison, entrant)
                note(f"{entrant.name}: {' '.join(command)}")
                running.append((entrant, _started(entrant, command, comparison.settings.threads)))
            if stopped():
                return False
            time.sleep(POLL_S)
            ended = [(entrant, process) for entrant, process in running if process.poll() is not None]
            running = [(entrant, process) for entrant, process in running if process.returncode is None]
            for entrant, process in ended:
                if process.returncode == RESUME_EXIT_CODE:
                    return False
                _check(entrant, process.returncode)
                if not is_measured(comparison, entrant):
                    waiting.insert(0, entrant)
        return True
    finally:
        for _, process in running:
            process.send_signal(signal.SIGTERM)
        for _, process in running:
            process.wait()


def _started(entrant: Entrant, command: list[str], threads: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with Path(f"{entrant.settings.run}.log").open("ab") as log:
        # A group of its own: Ctrl-C reaches this process alone, which then asks each run for a checkpoint.
        return subprocess.Popen(
            [sys.executable, "-m", "launch", *command],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _check(entrant: Entrant, code: int) -> None:
    if code:
        log = Path(f"{entrant.settings.run}.log")
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise RunError(f"{entrant.name} ended with exit code {code}: {last}; see {log}. The same command goes on")


def comparison_of(
    settings: RunSettings,
    *,
    systems: str,
    seeds: int,
    budget: int | None,
    minutes: float | None,
    out: str,
    held_out: str,
    count: int,
    jobs: int | None,
    learned: bool,
    most_evaluations: int | None,
    curves: bool,
) -> Comparison:
    """Return the comparison that the command line asks for; InputError where it makes no sense."""
    if "://" in out or not out:
        raise InputError(f"--out {out!r}: a comparison runs on one machine and needs a local folder")
    if minutes is not None:
        _check_minutes(settings, minutes, budget)
    if not learned and (most_evaluations is not None or curves):
        raise InputError("--no-learned: --tune and --curves go by learned features; leave it out, or these")
    changes = {"executor": "inline"} | ({} if budget is None else {"images": budget})
    settings = type(settings).model_validate(settings.model_dump() | changes)
    compared = parse_systems(settings, systems)
    for option, wanted in (("--tune", most_evaluations is not None), ("--curves", curves)):
        if wanted and not any(map(has_flows, compared.values())):
            raise InputError(f"{option}: no system of {systems} has flow experts; leave it out, or add flow")
    workers = jobs or max(1, (os.cpu_count() or 1) // settings.threads)
    return Comparison(
        settings,
        compared,
        range(seeds),
        Path(out),
        held_out,
        count,
        workers,
        learned,
        minutes,
        most_evaluations,
        curves,
    )


def _check_minutes(settings: RunSettings, minutes: float, budget: int | None) -> None:
    """Raise InputError where something else says how long a run trains."""
    if budget is not None:
        raise InputError(
            f"--minutes {minutes:g} and --budget {budget} both say how many images a run sees: leave one of them out"
        )
    for key in ("max_steps", "stage_images"):
        if value := getattr(settings, key):
            raise InputError(
                f"--minutes {minutes:g} and {key}={value} both say how long a run trains: leave one of them out"
            )
