"""Random SIGKILLs of one island's actors, machines, heads and drivers, while another island trains beside it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.ray_engine.address import VARIABLE
from cluster.run.settings import RunSettings
from launch.console.exit_codes import STOPPED_EXIT_CODE
from tests.campaigns.chaos.processes import MARK, command_of
from tests.campaigns.islands.faults import (
    ACTOR_AT_WORK,
    GCS,
    RAYLET,
    SETTLED_STEPS,
    Fault,
    Tally,
    Watch,
    kill,
    kill_actor,
    kill_driver,
    kill_job,
    kill_program,
    strike,
)
from tests.campaigns.islands.jobs import Island, differing_stages, wait_until
from tests.support.free_runs import free_settings
from tests.support.namespaces import PORT, Host, TwoNodes, ray_environment, ray_node, two_hosts
from tests.support.runs import write_small_shards

MANY = 10**6
BANDS = ["LL1", "HL1", "HH1"]
ENDLESS: dict[str, Any] = {
    "max_steps": MANY, "images": 8 * MANY, "checkpoint_every": 50, "snapshot_every": 10, "max_failures": -1,
    "executor": "ray", "plan": {"bands": BANDS},
}  # fmt: skip
START_TIMEOUT_S, GONE_TIMEOUT_S = 300.0, 20.0


class GivenCluster:
    """A Ray over two hosts that nobody of a training has started, and whose machines and head are lost."""

    def __init__(self) -> None:
        self._hosts, self._head, self._other = ExitStack(), ExitStack(), ExitStack()
        first, second = self._hosts.enter_context(two_hosts())
        self.nodes = TwoNodes(first, second, ray_environment({}))
        self._start_head()
        self._start_other()

    def _start_head(self) -> None:
        words = ("--head", f"--port={PORT}", "--include-dashboard=false")
        self._head.enter_context(ray_node(self.nodes, self.nodes.head, *words))

    def _start_other(self) -> None:
        self._other.enter_context(ray_node(self.nodes, self.nodes.other, f"--address={self.nodes.address}"))

    @property
    def environment(self) -> dict[str, str]:
        token = {name: value for name, value in self.nodes.environment.items() if name.startswith("RAY_AUTH")}
        return {VARIABLE: self.nodes.address, **token}

    def kill_actor(self, island: Island) -> Fault:
        """An actor of a stage, on either host: it is a process of the cluster, not of the island."""

        def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
            pids = [*self.nodes.head.pids(), *self.nodes.other.pids()]
            found = [pid for pid in pids if ACTOR_AT_WORK in command_of(pid)]
            return (set(), set(island.components)) if found and kill(rng.choice(found)) else None

        return fault

    def lose_machine(self, island: Island) -> Fault:
        """SIGKILL of the raylet of the other host, with all that runs there; a new one comes right afterwards."""

        def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
            there = {command_of(pid) for pid in self.nodes.other.pids()}
            if not any(ACTOR_AT_WORK in command for command in there):
                return None
            _kill_all(self.nodes.other, RAYLET)
            time.sleep(1)
            _kill_all(self.nodes.other)
            self._other.close()
            self._start_other()
            return set(), set(island.components)

        return fault

    def lose_head(self, island: Island) -> Fault:
        """SIGKILL of the head's control service; all of the cluster is started anew at the same address."""

        def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
            _kill_all(self.nodes.head, GCS)
            time.sleep(1)
            _kill_all(self.nodes.other)
            _kill_all(self.nodes.head, but=island.mark)
            self._other.close()
            self._head.close()
            self._start_head()
            self._start_other()
            return set(island.components), set(island.components)

        return fault

    def close(self) -> None:
        self._other.close()
        self._head.close()
        self._hosts.close()


def _kill_all(host: Host, program: str = "", but: str = "") -> None:
    """SIGKILL to the processes of a host, or those of a program, but not to those with a mark; they are gone then."""
    end_s = time.monotonic() + GONE_TIMEOUT_S
    while (left := [pid for pid in host.pids() if _is_meant(pid, program, but)]) and time.monotonic() < end_s:
        for pid in left:
            kill(pid)
        time.sleep(0.2)


def _is_meant(pid: int, program: str, but: str) -> bool:
    with suppress(OSError):
        spared = but and f"{MARK}={but}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return program in command_of(pid).partition(" ")[0] and not spared
    return False


@contextmanager
def running(islands: list[Island]) -> Iterator[Watch]:
    """Islands at work, and who watches them; all of them are stopped in the end, and leave nothing behind."""
    watch = Watch(islands)
    watch.start()
    try:
        for one in islands:
            one.keep_running()
        yield watch
    finally:
        watch.over.set()
        for one in islands:
            one.clean()


def stopped_right(islands: list[Island], settings: RunSettings, quiet: Path) -> list[str]:
    """Stops all of them and compares their bytes; what is wrong."""
    codes = [one.stop() for one in islands]
    wrong = [] if codes == [STOPPED_EXIT_CODE] * len(codes) else [f"exit codes {codes}: {[o.told() for o in islands]}"]
    return wrong + [f"bytes of {name}" for name in differing_stages(settings, quiet)]


def struck(name: str, folder: Path, moments: int, faults: Mapping[str, Fault], islands: list[Island]) -> int:
    """Every kind of fault ``moments`` times; how many rows are wrong."""
    rng, bad = random.Random(name), 0
    print(f"{'killed':24} {'times':>7} {'lost s':>6} {'worst':>6}", flush=True)
    with running(islands) as watch:
        if not wait_until(lambda: min(watch.farthest.values()) > SETTLED_STEPS, START_TIMEOUT_S):
            print(f"{name}: no start: {watch.farthest} {[one.told() for one in islands]}", flush=True)
            return 1
        for kind, fault in faults.items():
            tally = Tally(f"{name}: {kind}")
            while tally.struck < moments and strike(fault, tally, watch, rng):
                pass
            print(tally.text(), flush=True)
            bad += bool(tally.wrong)
            if tally.struck < moments:
                print(*(f"  {one.only}: {one.told()}" for one in islands), sep="\n", flush=True)
        steps, wrong = dict(watch.farthest), stopped_right(islands, islands[0].settings, folder / f"quiet {name}")
    again = {one.only: len(one.codes) for one in islands}
    print(f"{name}: {'; '.join(wrong) or 'all bytes right'} after {steps} steps; run again {again}", flush=True)
    return bad + bool(wrong)


def own_campaign(folder: Path, moments: int) -> int:
    """On a Ray of the job's own; prints a table; how many rows are wrong."""
    settings = free_settings(folder / "own", write_small_shards(folder), **ENDLESS)
    one, beside = Island(settings, ("LL1", "HL1"), folder), Island(settings, ("HH1",), folder, nice=True)
    faults = {
        "actor": kill_actor(one),
        "driver": kill_driver(one),
        "supervisor": kill_job(one),
        "head": kill_program(one, GCS),
        "machine": kill_program(one, RAYLET),
    }
    return struck("own Ray", folder, moments, faults, [one, beside])


def given_campaign(folder: Path, moments: int) -> int:
    """On a Ray of two hosts that was given; prints a table; how many rows are wrong."""
    settings = free_settings(folder / "given", write_small_shards(folder), **ENDLESS, heartbeat_timeout_s=5)
    cluster = GivenCluster()
    try:
        one = Island(settings, ("LL1", "HL1"), folder, cluster.nodes.head, cluster.environment)
        beside = Island(settings, ("HH1",), folder, nice=True)
        faults = {
            "actor": cluster.kill_actor(one),
            "machine": cluster.lose_machine(one),
            "driver": kill_driver(one),
            "head": cluster.lose_head(one),
        }
        return struck("given Ray", folder, moments, faults, [one, beside])
    finally:
        cluster.close()
