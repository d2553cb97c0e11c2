"""``freqgan compare``: several systems trained at equal cost, measured alike, as a table and a page.

Every run is an ordinary ``freqgan train`` of a settings file in the output folder, in a process of its own, and every
measurement an ordinary ``freqgan evaluate``: each line of a table can be had again by hand. What is done is not done
again, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.evaluation.evaluate import check_real, teach_networks
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.presence import check_data
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.training.stop_signals import stop_requests
from freqgan.costing.baselines import VARIANTS, at_cost, variant
from freqgan.costing.operator_count import training_cost
from freqgan.errors import InputError, RunError
from freqgan.model.expert_settings import GenerationSettings
from freqgan.setting_group import AS_STORED
from launch.pages.comparison import RunScores, write_page
from launch.settings.load import dump_settings

COSTS = "costs.json"
POLL_S = 0.5
RESUME_EXIT_CODE = 75


@dataclass(frozen=True)
class Entrant:
    """One system with one seed: its settings, of which ``run`` is the folder, and its cost per image."""

    system: str
    seed: int
    settings: RunSettings
    cost: float

    @property
    def name(self) -> str:
        """The name of the run for files and messages."""
        return f"{self.system}-{self.seed}"

    def scores_file(self, count: int) -> Path:
        """Return the scores of ``count`` images: of another count they are other scores."""
        return Path(self.settings.run, f"scores-{count}.json")


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        settings: of the system called bands; all others are made from them.
        systems: names of :data:`freqgan.costing.baselines.VARIANTS`.
        seeds: how many of each.
        out: local folder of all runs, the table and the page.
        held_out: shards of real images that nothing was trained on.
        count: images per measurement.
        jobs: processes at a time, each with ``threads`` of the settings.
        learned: whether distances by learned features are measured.

    """

    settings: RunSettings
    systems: Sequence[str]
    seeds: Sequence[int]
    out: Path
    held_out: str
    count: int
    jobs: int
    learned: bool = True


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
    open_folder(str(comparison.out)).check_writable()
    comparison.out.mkdir(parents=True, exist_ok=True)
    entrants = _entrants(comparison, note)
    if comparison.learned and not all(_measured(entrant, comparison.count) for entrant in entrants):
        teach_networks(comparison.held_out, comparison.settings, note)  # once, not in every process
    with stop_requests() as stopped:
        done = _run_all(comparison, entrants, note, stopped.is_set)
    if not done:
        return RESUME_EXIT_CODE, "stopped: the same command goes on from the checkpoints"
    page = write_page(comparison.out, [_scores(entrant, comparison.count) for entrant in entrants], comparison.count)
    return 0, page


def _entrants(comparison: Comparison, note: Callable[[str], None]) -> list[Entrant]:
    """Return every system with every seed, at the cost of the settings that were given."""
    by_system = _settings_at_cost(comparison, note)
    entrants = []
    for system in comparison.systems:
        for seed in comparison.seeds:
            settings, cost = by_system[system]
            run = str(comparison.out / f"{system}-{seed}")
            entrants.append(Entrant(system, seed, settings.model_copy(update={"seed": seed, "run": run}), cost))
    return entrants


def _settings_at_cost(comparison: Comparison, note: Callable[[str], None]) -> dict[str, tuple[RunSettings, float]]:
    """Return settings and cost of each system, kept in a file: finding widths takes half a minute each."""
    target = sum(training_cost(comparison.settings).values())
    path = comparison.out / COSTS
    known = json.loads(path.read_text()) if path.exists() else {}
    identity = comparison.settings.identity()
    if comparison.settings.generation != GenerationSettings():  # training does not depend on it, scores do
        identity["generation"] = comparison.settings.generation.model_dump(mode="json")
    if known and known["settings"] != identity:
        raise InputError(
            f"{comparison.out} holds a comparison of other settings; name another --out, or give the settings of before"
        )
    if known and known["held_out"] != comparison.held_out:
        raise InputError(
            f"--data {comparison.held_out}: {comparison.out} was measured against {known['held_out']}; name another "
            "--out, or give the same shards"
        )
    by_system: dict[str, tuple[RunSettings, float]] = {}
    systems = known.get("systems", {})
    for system in comparison.systems:
        if system not in systems:
            same = variant(comparison.settings, system)
            scaled, cost = (same, target) if system == "bands" else at_cost(same, target)
            note(f"{system}: {cost / 1e6:.1f} million multiply-accumulates per image, {cost / target:.3f} of bands")
            systems[system] = {"settings": scaled.model_dump(mode="json"), "cost": cost}
        entry = systems[system]
        by_system[system] = RunSettings.model_validate(entry["settings"], context=AS_STORED), float(entry["cost"])
    path.write_text(json.dumps({"settings": identity, "held_out": comparison.held_out, "systems": systems}, indent=1))
    return by_system


# -- processes -------------------------------------------------------------------------------------


def _run_all(
    comparison: Comparison, entrants: Sequence[Entrant], note: Callable[[str], None], stopped: Callable[[], bool]
) -> bool:
    """Run every missing command, ``jobs`` at a time; False when it was stopped."""
    waiting = [entrant for entrant in entrants if not _measured(entrant, comparison.count)]
    running: list[tuple[Entrant, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < comparison.jobs and not stopped():
                entrant = waiting.pop(0)
                command = _next_command(comparison, entrant)
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
                if not _measured(entrant, comparison.count):
                    waiting.insert(0, entrant)
        return True
    finally:
        for _, process in running:
            process.send_signal(signal.SIGTERM)
        for _, process in running:
            process.wait()


def _next_command(comparison: Comparison, entrant: Entrant) -> list[str]:
    """Return ``train`` until that is done, then ``evaluate``."""
    if not _trained(entrant):
        file = comparison.out / f"{entrant.name}.yaml"
        file.write_text(dump_settings(entrant.settings))
        return ["train", str(file)]
    measured = ["--data", comparison.held_out, "--count", str(comparison.count), "--parts"]
    measured += [] if comparison.learned else ["--no-learned"]
    return ["evaluate", entrant.settings.run, *measured, "--json", str(entrant.scores_file(comparison.count))]


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


def _trained(entrant: Entrant) -> bool:
    run = entrant.settings.run
    return has_checkpoints(run) and find_checkpoint(run).step >= entrant.settings.last_step


def _measured(entrant: Entrant, count: int) -> bool:
    return _trained(entrant) and entrant.scores_file(count).exists()


def _scores(entrant: Entrant, count: int) -> RunScores:
    values = json.loads(entrant.scores_file(count).read_text())
    return RunScores(entrant.system, entrant.seed, entrant.settings, entrant.cost, values)


def comparison_of(
    settings: RunSettings,
    *,
    systems: str,
    seeds: int,
    budget: int | None,
    out: str,
    held_out: str,
    count: int,
    jobs: int | None,
    learned: bool,
) -> Comparison:
    """Return the comparison that the command line asks for; InputError where it makes no sense."""
    if "://" in out or not out:
        raise InputError(f"--out {out!r}: a comparison runs on one machine and needs a local folder")
    changes = {"executor": "inline"} | ({} if budget is None else {"images": budget})
    settings = type(settings).model_validate(settings.model_dump() | changes)
    names = list(dict.fromkeys(name.strip() for name in systems.split(",") if name.strip()))
    if not names:
        raise InputError(f"--presets {systems!r} names no system: give some of {', '.join(VARIANTS)}")
    for name in names:
        variant(settings, name)
    cores = os.cpu_count() or 1
    workers = jobs or max(1, cores // settings.threads)
    return Comparison(settings, names, range(seeds), Path(out), held_out, count, workers, learned)
