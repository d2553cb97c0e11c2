"""Trains over two hosts, cuts the link between them for a while or for ever, and holds the result against a quiet run.

``python -m tests.campaigns.hosts`` (``make hosts``; as root, on Linux) prints a table: what came of it, the seconds
until the run noticed, until its steps went on, and in all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.run.settings import RunSettings
from tests.support.namespaces import Host, Shape, running, two_ray_nodes
from tests.support.runs import tiny_run_settings, trained, write_small_shards

STEPS, CUT_AFTER_STEP, PAUSE_S, OUTAGE_S = 80, 20, 0.5, 30.0
LIMIT_S = 420.0
LONG_STEP_S = 3.0
FOR_EVER = float("inf")


@dataclass(frozen=True)
class Cut:
    """The link goes down when a step is finished, and comes back after ``outage_s``."""

    after_step: int
    outage_s: float


@dataclass(frozen=True)
class Told:
    """What a training told, its exit code (None: it was ended at the limit), and when its link went down."""

    lines: list[dict[str, Any]]
    code: int | None
    begun_s: float
    cut_s: float
    ended_s: float
    errors: str

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The lines of these kinds."""
        return [line for line in self.lines if line["kind"] in kinds]

    @property
    def digest(self) -> str | None:
        """Of the newest checkpoint of a run that came to its end."""
        return next((line["digest"] for line in self.of("ended")), None)

    @property
    def noticed_s(self) -> float | None:
        """From the link going down to the first failure that the run saw, or to its end."""
        signs = [line["at_s"] for line in self.of("failure", "recovered", "ended") if line["at_s"] > self.cut_s]
        return min(signs) - self.cut_s if signs else None

    @property
    def resumed_s(self) -> float | None:
        """From the link going down to the end of the longest time without a finished step."""
        moments = [self.cut_s, *(line["at_s"] for line in self.of("stepped") if line["at_s"] > self.cut_s)]
        _, end_s = max(pairwise(moments), key=lambda pair: pair[1] - pair[0], default=(0.0, None))
        return None if end_s is None else end_s - self.cut_s

    def hosts(self) -> list[dict[str, str]]:
        """Addresses of the actors, by name, whenever all of them had been started."""
        return [line["hosts"] for line in self.of("placed")]


def told_over_two_hosts(settings: RunSettings, cut: Cut | None = None, pause_s: float = 0.0,
                        limit_s: float = LIMIT_S, shape: Shape | None = None, **variables: str) -> Told:  # fmt: skip
    """Trains over two Ray nodes on two hosts with a cable of that ``shape``; ``variables`` for all processes of them.

    Raises:
        PermissionError: this process may not make hosts.

    """
    lines: list[dict[str, Any]] = []
    cut_s = float("inf")
    command = [sys.executable, "-m", "tests.support.telling", settings.model_dump_json(), str(pause_s)]
    with two_ray_nodes(shape, **variables) as nodes, tempfile.TemporaryFile("w+") as errors:
        environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
        begun_s = time.monotonic()
        options = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        with running(nodes.head.command(command), **options) as process, _ended_after(limit_s, process) as late:
            for line in process.stdout or ():
                if not line.startswith("{"):
                    continue
                lines.append(json.loads(line))
                if (
                    cut
                    and cut_s == FOR_EVER
                    and (lines[-1]["kind"], lines[-1].get("step")) == ("stepped", cut.after_step)
                ):
                    cut_s = _cut(nodes.other, cut.outage_s)
            code = process.wait()
        errors.seek(0)
        return Told(lines, None if late.is_set() else code, begun_s, cut_s, time.monotonic(), errors.read())


def _cut(host: Host, outage_s: float) -> float:
    """Takes the link down, and up again later; when it went down."""
    host.link("down")
    if outage_s != FOR_EVER:
        timer = threading.Timer(outage_s, host.link, ["up"])
        timer.daemon = True
        timer.start()
    return time.monotonic()


@contextmanager
def _ended_after(limit_s: float, process: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """Kills the group of a process that takes longer; the event says that this has happened."""
    late = threading.Event()

    def end() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def campaign() -> int:
    """A quiet run, one with the link down for a while, one with it down for ever; 0 when all digests were right."""
    wrong = 0
    cases = {
        "link stays up": None,
        f"down for {OUTAGE_S:g} s": Cut(CUT_AFTER_STEP, OUTAGE_S),
        "down for ever": Cut(CUT_AFTER_STEP, FOR_EVER),
    }
    with tempfile.TemporaryDirectory() as folder:
        data = write_small_shards(Path(folder))
        common: dict[str, Any] = {"max_steps": STEPS, "images": 8 * STEPS, "checkpoint_every": 5, "snapshot_every": 5}
        result, _, quiet = trained(tiny_run_settings(f"{folder}/quiet", data, **common))
        if result.reason != "done":  # a training takes a signal for itself
            return 1
        print(f"{'case':14} {'digest':7} {'exit':>4} {'noticed s':>10} {'goes on s':>10} {'in all s':>9}")
        for name, cut in cases.items():
            settings = tiny_run_settings(f"{folder}/{name}", data, executor="ray", **common)
            told = told_over_two_hosts(settings, cut, PAUSE_S)
            wrong += told.digest != quiet
            print(_row(name, told, quiet), *_story(told), sep="\n", flush=True)
    return int(wrong > 0)


def _row(name: str, told: Told, quiet: str) -> str:
    digest = {quiet: "right", None: "none"}.get(told.digest, "wrong")
    exit_code = "late" if told.code is None else str(told.code)
    noticed, resumed = (f"{s:10.1f}" if s is not None else f"{'-':>10}" for s in (told.noticed_s, told.resumed_s))
    return f"{name:14} {digest:7} {exit_code:>4} {noticed} {resumed} {told.ended_s - told.begun_s:9.1f}"


def _story(told: Told) -> Iterator[str]:
    """Who was where, and what happened when, in seconds since the link went down."""
    cut_s = told.begun_s if told.cut_s == FOR_EVER else told.cut_s
    before: dict[str, Any] = {"at_s": FOR_EVER}
    for line in told.lines:
        at = f"  {line['at_s'] - cut_s:8.1f}"
        if line["kind"] != "stepped":
            values = ", ".join(f"{k}: {v}" for k, v in line.items() if k not in ("kind", "at_s"))
            yield f"{at} {line['kind']} {' '.join(values.split())}"
            continue
        if line["at_s"] - before["at_s"] > LONG_STEP_S:
            yield f"{at} step {line['step']}, {line['at_s'] - before['at_s']:.1f} s after step {before['step']}"
        before = line
    if told.code != 0:
        yield from (f"  | {line}" for line in told.errors.splitlines()[-8:])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that the hosts are taken away
    sys.exit(campaign())
