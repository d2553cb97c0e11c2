"""Jobs that train components of a run, by the command line, as processes; what their logs say while they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from cluster.ray_engine.address import LOOPBACK_VARIABLE, VARIABLE
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from launch.console.exit_codes import STOPPED_EXIT_CODE
from launch.settings.load import dump_settings
from tests.campaigns.chaos.processes import MARK, command_of, end_marked, marked
from tests.support.commands import ROOT, command_line
from tests.support.free_runs import trained_apart
from tests.support.namespaces import Host

EXIT_TIMEOUT_S, POLL_S, NICE_EVERY_S = 300.0, 0.1, 2.0
RUN_AGAIN = (STOPPED_EXIT_CODE, 3, -signal.SIGKILL)
"""Exit codes after which a scheduler runs the same command again."""
TAIL_BYTES = 4096
_numbers = count(1)


class Island:
    """A job that trains some components of a run, and is run again until it is told to stop.

    Args:
        settings: of the whole run.
        only: the stages to train; empty for all.
        folder: for its file of settings and its log.
        host: where it runs; None is this machine.
        environment: variables beside those of this process.
        nice: takes what processors others leave; an undisturbed training of as many steps then takes less long.

    """

    def __init__(
        self,
        settings: RunSettings,
        only: Sequence[str],
        folder: Path,
        host: Host | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        nice: bool = False,
    ) -> None:
        self.settings, self.only, self.host = settings.model_copy(update={"only": tuple(only)}), tuple(only), host
        self.number, self.nice = next(_numbers), nice
        self.mark = f"{os.environ.get(MARK, f'pid{os.getpid()}')}.{self.number}"
        self.file, self.log = folder / f"island{self.number}.yaml", folder / f"island{self.number}.log"
        self.environment = dict(environment or {})
        self.codes: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def components(self) -> list[str]:
        return list(self.settings.by_component())

    def start(self) -> None:
        """Runs the command once."""
        self.file.write_text(dump_settings(self.settings.model_copy(update={"only": ()})))
        words = command_line("train", self.file, *([f"only={','.join(self.only)}"] if self.only else []))
        words = ["nice", "-n", "19", *words] if self.nice else words
        environment = {key: x for key, x in os.environ.items() if key not in (VARIABLE, LOOPBACK_VARIABLE)}
        if VARIABLE not in self.environment:
            environment[LOOPBACK_VARIABLE] = "0"
        environment |= {MARK: self.mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | self.environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.host.command(words) if self.host else words,
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def keep_running(self) -> None:
        """Runs the command, and again whenever it has ended, until :meth:`stop`."""
        self.start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        if self.nice:
            threading.Thread(target=self._stay_nice, daemon=True).start()

    def _keep(self) -> None:
        while not self._over.wait(POLL_S):
            assert self.process is not None
            if (code := self.process.poll()) is not None:
                self.codes.append(code)
                if code not in RUN_AGAIN:
                    return
                self.start()

    def _stay_nice(self) -> None:
        """Has the sessions of its processes stay behind others: Linux shares processors between sessions first."""
        while not self._over.wait(NICE_EVERY_S):
            for pid in marked(self.mark):
                with suppress(OSError):
                    Path(f"/proc/{pid}/autogroup").write_text("5")

    def stop(self) -> int | None:
        """Asks it to stop as a scheduler would; its exit code."""
        self._over.set()
        if self._keeper is not None:
            self._keeper.join()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = EXIT_TIMEOUT_S) -> int | None:
        """Its exit code; None where it does not end: then it is killed."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def clean(self) -> None:
        """Ends what it has left behind."""
        self._over.set()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        end_marked(self.mark)

    def pids(self, words: str) -> list[int]:
        """Its processes whose command line has ``words`` in it."""
        return [pid for pid in marked(self.mark) if words in command_of(pid)]

    def told(self) -> str:
        """The last lines of its log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-4:])


class ComponentLog:
    """What the folder of a component, on a disk, says of it."""

    def __init__(self, settings: RunSettings, name: str) -> None:
        self.folder = Path(settings.by_component()[name].run)

    def step(self) -> int:
        """The last step in its metrics; 0 where there is none."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")
        except OSError:
            return 0
        return int(json.loads(lines[-2])["step"]) if len(lines) > 1 else 0

    def failures(self) -> int:
        """How many were got over."""
        try:
            return len((self.folder / "failures.jsonl").read_bytes().splitlines())
        except OSError:
            return 0

    def epoch(self) -> int:
        """How many processes have trained it, one after the other."""
        try:
            return int(json.loads((self.folder / "checkpoints/LEASE").read_bytes())["epoch"])
        except (OSError, ValueError):
            return 0


def wait_until(there: object, timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Whether ``there()`` came true in time."""
    assert callable(there)
    end_s = time.monotonic() + timeout_s
    while not there():
        if time.monotonic() > end_s:
            return False
        time.sleep(POLL_S)
    return True


def newest_steps(settings: RunSettings) -> dict[str, int]:
    """The step of the newest checkpoint of each component, by its name."""
    steps = {}
    for name, own in settings.by_component().items():
        names = open_folder(own.run).child("checkpoints").list()
        steps[name] = max((int(one.split("/")[0]) for one in names if one.endswith("/manifest.json")), default=0)
    return steps


def differing_stages(settings: RunSettings, quiet: Path) -> list[str]:
    """The stages whose bytes are not those of an undisturbed training, in this process, of as many steps."""
    whole = settings.model_copy(update={"only": ()})
    checkpoint = find_checkpoint(whole.run)
    digests, steps = checkpoint.stage_digests(), checkpoint.stage_steps
    calm = whole.model_copy(update={"run": str(quiet), "executor": "inline", "checkpoint_every": 10**6})
    for name, own in whole.by_component().items():
        trained_apart(calm.model_copy(update={"max_steps": steps[name]}), *own.only)
    expected = find_checkpoint(str(quiet)).stage_digests()
    return [name for name in digests if digests[name] != expected[name]]
