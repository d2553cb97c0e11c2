"""A Ray head with a dashboard and a token, of processes of its own: what a cluster offers, on loopback."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.ray_engine.address import LOOPBACK_VARIABLE

START_S = 120


@dataclass(frozen=True)
class Head:
    """Where its dashboard and its GCS are, and the variables with which a client may talk to it."""

    address: str
    gcs_address: str
    token: str

    @property
    def variables(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextmanager
def running_head(folder: Path, **environment: str) -> Iterator[Head]:
    """A head with two CPUs and its session in ``folder``; all of its processes are gone afterwards."""
    ports = free_ports(5)
    head = Head(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", secrets.token_hex(16))
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={ports[1]}", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports[0]}",
        f"--dashboard-agent-listen-port={ports[2]}", f"--ray-client-server-port={ports[3]}",
        f"--metrics-export-port={ports[4]}", "--num-cpus=2", "--object-store-memory=200000000",
        f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    variables = os.environ | head.variables | environment
    variables.pop("RAY_ADDRESS", None)
    variables[LOOPBACK_VARIABLE] = "0"
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"  # `python` is this one, as in an image
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(head, process, folder / "head.log")
        yield head
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):  # it waits long for its agents, which the next line ends
            process.wait(3)
        _end_session(folder)


def _wait_for(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    request = urllib.request.Request(f"{head.address}/api/version", headers={"Authorization": f"Bearer {head.token}"})
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"no dashboard at {head.address}: {log.read_text()}")


def _end_session(folder: Path) -> None:
    """Every process that was started for the session in ``folder``: Ray gives some of them groups of their own."""
    for _ in range(20):
        left = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _belongs(pid, folder)]
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def _belongs(pid: int, folder: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return pid != os.getpid() and str(folder).encode() in command + environment and b"pytest" not in command


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
