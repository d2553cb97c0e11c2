"""Training at a free pace as a person starts it: components in this process, or each in a process of its own on Ray.

A process for each costs some memory, and makes the loss of one a matter of that one alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.execution.failure_policy import UNLIMITED
from cluster.ray_engine.address import LOOPBACK_VARIABLE, given_address
from cluster.run.free_run import FreeRun
from cluster.run.layout import LEASE
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.storage.lease import HeldError, holder_of
from cluster.training.free_running import FreeResult, WholeModel, begin, train_components
from cluster.training.stop_signals import stop_requests
from freqgan.errors import RunError
from launch.console.exit_codes import REFUSED_EXIT_CODE, STOPPED_EXIT_CODE
from launch.console.progress import ProgressReporter
from launch.run_folder.layout import CONFIG
from launch.settings.load import dump_settings

if TYPE_CHECKING:  # importing Ray takes a second
    from cluster.ray_engine.shared_ray import SharedRay

SUPERVISOR_VARIABLE = "FREQGAN_SUPERVISOR"
"""Tells the process of a component whose it is: it ends with that one, whose Ray it trains on."""
_PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
POLL_S = 0.5
LOOK_EVERY_S = 10.0
"""Between looks at the checkpoints of all components, which are read from storage."""


def train_in_turns(settings: RunSettings, address: str | None, reporter: ProgressReporter) -> FreeResult:
    """Train the components that ``settings.only`` names in this process, one step of each after the other.

    Raises:
        FreqganError: as :func:`cluster.training.free_running.train_components`.

    """
    with ExitStack() as reporters:

        def reporter_of(own: RunSettings) -> ProgressReporter:
            return reporters.enter_context(ProgressReporter(own, reporter.console, component=own.only[0]))

        write_config(settings)
        return train_components(settings, reporter, reporter_of, address=address)


def write_config(settings: RunSettings) -> None:
    """Write the settings of the whole run into its folder, where there are none."""
    folder = open_folder(settings.run)
    if not folder.exists(CONFIG):
        folder.write(CONFIG, dump_settings(settings.model_copy(update={"only": ()})).encode())


def end_with_supervisor() -> None:
    """Have this process killed together with the one that SUPERVISOR_VARIABLE names, where it does and Linux runs.

    A supervisor that is killed could not end it, and the same command would find all components in use.
    """
    number = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not number or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(number):  # it was killed before
        sys.exit(STOPPED_EXIT_CODE)


def train_in_processes(settings: RunSettings, address: str | None, reporter: ProgressReporter) -> bool:
    """Train the components that ``settings.only`` names on one Ray, each by a process of its own.

    As many at a time as the machines have devices for, the ones with the most work first.

    Returns:
        Whether a signal stopped it.

    Raises:
        FreqganError: as :func:`cluster.training.free_running.begin`; RunError where a component failed, HeldError where
            others train all of them.

    """
    if given_address(address) is None:
        os.environ.setdefault(LOOPBACK_VARIABLE, "0")  # before Ray is imported, which reads it then
    from cluster.ray_engine.shared_ray import SharedRay  # only here: importing Ray takes a second

    run = begin(settings, reporter, address)
    write_config(settings)
    watch = None if settings.only else WholeModel(run, settings, reporter)
    with tempfile.TemporaryDirectory(prefix="freqgan-") as folder, SharedRay(settings, address) as shared:
        config = Path(folder, CONFIG)
        config.write_text(dump_settings(settings.model_copy(update={"only": ()})))
        crew = Crew(settings, run, shared, str(config), reporter.warn)
        with stop_requests() as stopped:
            try:
                crew.run_all(stopped.is_set, watch)
            finally:
                if watch is not None:
                    watch.close(stopped=stopped.is_set())
    if crew.failed:
        raise RunError(
            f"{', '.join(crew.failed)} failed, for reasons given above; the same command goes on from the checkpoints"
        )
    if crew.busy and not crew.ended:
        raise HeldError(f"others train all that is left of {settings.run}: {', '.join(crew.busy)}")
    return stopped.is_set() or crew.is_leaving


@dataclass
class Crew:
    """The processes that train components, one for each.

    Attributes:
        settings: of the whole run.
        run: its folder.
        shared: the Ray that they train on.
        config: file of the settings.
        note: tells the user.
        failed: components that failed for good.
        busy: components that others train.
        ended: components that were trained here, to their end or to a stop.
        running: the process of each that is trained here now, and on which of the Rays, one after the other, it does.
        losses: of processes that were started again.
        is_leaving: whether the machine is to be taken away.

    """

    settings: RunSettings
    run: FreeRun
    shared: SharedRay
    config: str
    note: Callable[[str], None]
    failed: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = field(default_factory=dict)
    losses: int = 0
    is_leaving: bool = False

    def run_all(self, stopped: Callable[[], bool], watch: WholeModel | None) -> None:
        """Train all components that are not done yet, until they are, or until ``stopped`` ends their processes."""
        machines, capacity = self.shared.machines(), self.shared.capacity()
        waiting = self._left(capacity)
        looked_s = time.monotonic()
        try:
            while waiting or self.running:
                while waiting and len(self.running) < capacity and not stopped():
                    name = waiting.pop(0)
                    self.running[name] = self._start(name, machines)
                if stopped() or self.is_leaving:
                    return
                time.sleep(POLL_S)
                waiting += self._lost()
                if watch is not None and time.monotonic() - looked_s >= LOOK_EVERY_S:
                    looked_s = time.monotonic()
                    watch.look()
        finally:
            self._end()

    def _left(self, capacity: int) -> list[str]:
        """Return the components that are still to be trained; if more than ``capacity``, those with most work first."""
        seen, parts = self.run.newest_images(), self.settings.by_component()
        left = [name for name, own in parts.items() if (seen[name] or 0) < own.last_step * own.batch]
        if len(left) <= capacity:
            return left
        work = self.shared.work()  # of large networks it takes minutes to count, once
        images = {name: parts[name].last_step * parts[name].batch - (seen[name] or 0) for name in left}
        return sorted(left, key=lambda name: -images[name] * sum(work[stage] for stage in parts[name].only))

    def _start(self, name: str, machines: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
        stages = self.settings.by_component()[name].only
        places = [f"machines.{stage}={machines[stage]}" for stage in stages if stage in machines]
        command = [sys.executable, "-m", "launch", "train", self.config, f"only={','.join(stages)}", *places]
        # A group of its own: Ctrl-C reaches this process alone, which then asks each for a checkpoint.
        environment = os.environ | self.shared.environment() | {SUPERVISOR_VARIABLE: str(os.getpid())}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        return process, self.shared.starts

    def _lost(self) -> list[str]:
        """Take those that have ended off the list; return those that are to be started again."""
        over = {name: one for name, one in self.running.items() if one[0].poll() is not None}
        again = []
        for name, (process, start) in over.items():
            del self.running[name]
            code = process.returncode
            if code in (0, STOPPED_EXIT_CODE):
                self.ended.append(name)
                self.is_leaving |= code == STOPPED_EXIT_CODE  # nobody asked it: its machine is drained
            elif code == REFUSED_EXIT_CODE:
                (self.busy if self._is_busy(name) else self.failed).append(name)
            elif self._may_start_again(code, start):
                self.note(f"{name}: its process ended ({_text(code)}); another goes on from its checkpoint")
                again.append(name)
            else:
                self.failed.append(name)
        return again

    def _is_busy(self, name: str) -> bool:
        """Return whether somebody else trains a component."""
        holder = holder_of(self.run.checkpoints_of(name), LEASE)
        return holder is not None and not holder.is_free

    def _may_start_again(self, code: int, start: int) -> bool:
        """Return whether the end of a process is no fault of the training: it was killed, or our own Ray was lost.

        All that trained on a Ray end with it, one after the other: the first of them has another Ray started.
        """
        if self.shared.is_own and not self.shared.answers():  # Ray ends who asks another one's new head
            self._restart_ray()
        if code >= 0 and start == self.shared.starts:
            return False
        self.losses += 1
        return self.settings.max_failures == UNLIMITED or self.losses <= self.settings.max_failures

    def _restart_ray(self) -> None:
        """Start a Ray anew, and have signals end the training as before: Ray installs handlers of its own."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.shared.restart()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """Ask those that still run for a checkpoint, and wait for it."""
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self.running.values():
            process.wait()
        self.running = {}


def _text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
