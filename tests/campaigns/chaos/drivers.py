"""Drivers of trainings as processes, whose lines are read as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from tests.campaigns.chaos.processes import MARK, end_marked, find_marked

ROOT = Path(__file__).parents[3]
EXIT_TIMEOUT_S, POLL_S = 300.0, 0.2
_numbers = count(1)


class Driver:
    """One process of :mod:`tests.campaigns.chaos.driver`; all that it starts carries its ``mark``.

    Args:
        settings: arguments of :func:`tests.campaigns.chaos.trainings.chaos_settings`.
        order: more of what the process is told.
        environment: variables beside those of this process.

    """

    def __init__(self, settings: Mapping[str, Any], order: Mapping[str, Any] | None = None, **environment: str) -> None:
        self.mark = f"{os.environ.get(MARK, f'pid{os.getpid()}')}.{next(_numbers)}"
        told = {"settings": {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaigns.chaos.driver", json.dumps({**told, **(order or {})})],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: self.mark} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.began_s = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self.changed = threading.Condition()  # its lock may be taken again by who has it
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append((time.monotonic(), line.strip()))
                self.changed.notify_all()

    @property
    def ended(self) -> bool:
        """The pipe does not tell: what a dead driver leaves behind holds it open."""
        return self.process.poll() is not None

    def said(self, word: str) -> list[str]:
        """The rests of the lines that begin with ``word``."""
        with self.changed:
            return [text.partition(" ")[2] for _, text in self.lines if text.partition(" ")[0] == word]

    @property
    def step(self) -> int:
        """The last that it has finished."""
        return max(map(int, self.said("step")), default=0)

    def steps_at_s(self) -> list[tuple[float, int]]:
        with self.changed:
            return [(at_s, int(text.split()[1])) for at_s, text in self.lines if text.startswith("step ")]

    def wait_for(self, step: int, timeout_s: float = EXIT_TIMEOUT_S) -> bool:
        """Whether it has finished that many steps, once it has, or has ended."""
        return self._wait(lambda: self.step >= step, timeout_s)

    def wait_ready(self) -> bool:
        return self._wait(lambda: bool(self.said("ready")), EXIT_TIMEOUT_S)

    def wait_recovered(self, recoveries: int) -> bool:
        """Whether it tells of more than ``recoveries``, once it does, or has ended."""
        return self._wait(lambda: len(self.said("recovered")) > recoveries, EXIT_TIMEOUT_S)

    def _wait(self, there: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not there() and not self.ended and time.monotonic() < deadline_s:
            with self.changed:
                self.changed.wait(POLL_S)
        return there()

    def go(self) -> None:
        """For one that was ``held``."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill_program(self, program: str) -> int:
        """SIGKILL to what it has started of that name; how many there were."""
        found = find_marked(self.mark, program)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return len(found)

    def exit_code(self, timeout_s: float = EXIT_TIMEOUT_S) -> int | None:
        """None where it does not end: then it is killed."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def clean(self) -> int:
        """Ends it and what it has left behind; how many processes that were."""
        return end_marked(self.mark)
