"""Two hosts on one machine: two network namespaces joined by one cable, each with a Ray node of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.ray_engine.address import LOOPBACK_VARIABLE

ROOT = Path(__file__).parents[2]
PREFIX = "freqgan"
DEVICE = "eth0"
PORT = 6379
STORE_BYTES = 128 * 2**20
START_TIMEOUT_S, END_TIMEOUT_S = 60.0, 10.0


@dataclass(frozen=True)
class Host:
    """One network namespace with one device in it, and loopback."""

    namespace: str
    address: str

    @property
    def folder(self) -> Path:
        """For Ray's sockets: a short path. Disk and shared memory are the machine's."""
        return Path("/tmp") / self.namespace

    def command(self, words: Sequence[str]) -> list[str]:
        """``words`` as a command that runs on this host."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def link(self, state: str) -> None:
        """Its end of the cable "up" or "down". The other end loses its carrier but keeps address and route: what is
        sent there is lost without a word, as behind a dead switch.
        """  # fmt: skip
        _ip("-n", self.namespace, "link", "set", DEVICE, state)

    def pids(self) -> list[int]:
        """Its processes."""
        return [int(number) for number in _ip("netns", "pids", self.namespace).split()]

    def remove(self) -> None:
        """Kills all its processes, also those that have left their process group; then nothing of it is left."""
        end_s = time.monotonic() + END_TIMEOUT_S
        while (pids := self.pids()) and time.monotonic() < end_s:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        _ip("netns", "delete", self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Shape:
    """Of a cable: its rate, and how long a packet is on its way."""

    mbit_per_s: float
    delay_ms: float

    @contextmanager
    def cable(self, first: str, second: str) -> Iterator[None]:
        """A cable between two namespaces; see :mod:`tests.support.slow_cable`."""
        words = [first, second, f"{self.mbit_per_s:g}", f"{self.delay_ms:g}"]
        command = [sys.executable, "-m", "tests.support.slow_cable", *words]
        with running(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise PermissionError("no TAP devices here")
            yield


@contextmanager
def two_hosts(shape: Shape | None = None) -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else; afterwards they are gone, with all their processes.

    Args:
        shape: of the cable between them; None is as fast as it can be.

    Raises:
        PermissionError: this process may not make them; the message says why.

    """
    _remove_left_behind()
    first, second = (Host(f"{PREFIX}-{os.getpid()}-{i}", f"10.200.0.{i}") for i in (1, 2))
    with ExitStack() as after:
        for host in (first, second):
            after.enter_context(_namespace(host))
        if shape is not None:
            after.enter_context(shape.cable(first.namespace, second.namespace))
        else:
            peer = ("type", "veth", "peer", "name", DEVICE, "netns", second.namespace)
            _ip("link", "add", DEVICE, "netns", first.namespace, *peer)
        for host in (first, second):
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                _ip("-n", host.namespace, "link", "set", device, "up")
        yield first, second


@contextmanager
def _namespace(host: Host) -> Iterator[None]:
    _ip("netns", "add", host.namespace)
    try:
        host.folder.mkdir()
        yield
    finally:
        host.remove()


STORE = "10.201.0.1"
"""Where islands find what they share: an address of this machine that it has while there are islands."""


@contextmanager
def islands(shapes: Sequence[Shape | None]) -> Iterator[list[Host]]:
    """Hosts that reach this machine at STORE, but not each other; their links have these ``shapes``.

    Raises:
        PermissionError: this process may not make them; the message says why.

    """
    _remove_left_behind()
    hosts = [Host(f"{PREFIX}-{os.getpid()}-{i}", f"10.201.{i}.2") for i in range(1, len(shapes) + 1)]
    with ExitStack() as after:
        _ip("address", "replace", f"{STORE}/32", "dev", "lo")  # it may be left behind
        after.callback(_ip, "address", "delete", f"{STORE}/32", "dev", "lo")
        for host, shape in zip(hosts, shapes, strict=True):
            after.enter_context(_namespace(host))
            after.enter_context(_link_to_here(host, shape))
        yield hosts


@contextmanager
def _link_to_here(host: Host, shape: Shape | None) -> Iterator[None]:
    here, gateway = f"fg{host.namespace.removeprefix(PREFIX)}"[-15:], host.address.rpartition(".")[0] + ".1"
    with ExitStack() as after:
        if shape is not None:
            after.enter_context(shape.cable("-", host.namespace))
            _ip("link", "set", "freqgan-cable", "name", here)
        else:
            _ip("link", "add", here, "type", "veth", "peer", "name", DEVICE, "netns", host.namespace)
        _ip("address", "add", f"{gateway}/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", DEVICE)
        for device in ("lo", DEVICE):
            _ip("-n", host.namespace, "link", "set", device, "up")
        _ip("-n", host.namespace, "route", "add", STORE, "via", gateway)
        yield


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with a group of its own; the group is killed afterwards."""
    process = subprocess.Popen(command, start_new_session=True, text=True, cwd=ROOT, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class TwoNodes:
    """Ray over two hosts: the head on the first, one more node on the second; variables for all processes of it."""

    head: Host
    other: Host
    environment: dict[str, str]

    @property
    def address(self) -> str:
        """Of the cluster, on the first host."""
        return f"{self.head.address}:{PORT}"


@contextmanager
def two_ray_nodes(shape: Shape | None = None, **variables: str) -> Iterator[TwoNodes]:
    """A Ray of two nodes with one CPU each, one on each of two hosts; with more ``variables`` in the environment."""
    with two_hosts(shape) as (first, second), ExitStack() as after:
        nodes = TwoNodes(first, second, ray_environment(variables))
        after.enter_context(ray_node(nodes, first, "--head", f"--port={PORT}", "--include-dashboard=false"))
        after.enter_context(ray_node(nodes, second, f"--address={nodes.address}"))
        yield nodes


@contextmanager
def ray_node(nodes: TwoNodes, host: Host, *words: str) -> Iterator[None]:
    """``ray start WORDS`` on ``host``; waits until it is up."""
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block", "--disable-usage-stats"]
    start += [f"--node-ip-address={host.address}", f"--object-store-memory={STORE_BYTES}", "--num-cpus=1"]
    start += [f"--temp-dir={host.folder}"]
    said = host.folder / "start.log"
    end_s = time.monotonic() + START_TIMEOUT_S
    with said.open("w") as log:
        options = {"env": nodes.environment, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        with running(host.command(start), **options) as process:
            while "Ray runtime started" not in said.read_text():
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"no Ray node came up at {host.address}:\n{said.read_text()}")
                time.sleep(0.2)
            yield


def ray_environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's without what binds Ray to loopback or leads to another cluster, with a token of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in (LOOPBACK_VARIABLE, "RAY_ADDRESS")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return kept | token | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables


def _remove_left_behind() -> None:
    """The hosts of a test that was killed before it could remove them."""
    for name, pid in re.findall(rf"^({PREFIX}-(\d+)-\d)\b", _ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            Host(name, "").remove()


def _ip(*words: str) -> str:
    try:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise PermissionError("there is no command `ip` (iproute2)") from error
    except subprocess.CalledProcessError as error:
        raise PermissionError(f"ip {' '.join(words)}: {error.stderr.strip()}") from error
