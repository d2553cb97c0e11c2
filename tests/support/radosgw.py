"""A Ceph object store on this machine: one monitor, one OSD in memory and one gateway, all on loopback.

Its Debian packages are taken from the system where they are installed, else from ``build/ceph``, where ``python -m
tests.support.radosgw`` (``make ceph``) unpacks them: nothing is installed, and no daemon of the system is started. Keys
are made anew for every cluster; all of its files and processes are gone in the end.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / "build" / "ceph"
PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-mgr")
LONGEST_S = 90
LOOPBACK = "127.0.0.1"

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor_port}/0]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}
crash dir = {folder}
admin socket =
log file = {folder}/$name.log
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
paxos propose interval = 0.05
paxos min wait = 0.01
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw]
rgw frontends = beast endpoint={address}:{gateway_port}
rgw data = {folder}/rgw
"""
CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
}


def root() -> Path | None:
    """The folder under which Ceph's programs lie in usr/bin; None where they are not to be had."""
    places = (Path("/"), UNPACKED)
    programs = ("radosgw", "ceph-mon", "ceph-osd", "ceph-authtool")
    return next((place for place in places if all((place / "usr/bin" / name).exists() for name in programs)), None)


def unpack() -> None:
    """Downloads the packages with all they need and unpacks them; RuntimeError where apt has none."""
    if root() is not None:
        return
    listed = subprocess.run(
        ["apt-get", "--simulate", "install", "--no-install-recommends", *PACKAGES],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    names = [line.split()[1] for line in listed.stdout.splitlines() if line.startswith("Inst ")]
    if not names:
        raise RuntimeError(f"apt has no {', '.join(PACKAGES)}: {listed.stderr.strip()[-200:]}; try `apt-get update`")
    UNPACKED.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED.parent) as name:
        folder = Path(name)
        subprocess.run(["apt-get", "--quiet", "download", *names], cwd=folder, timeout=900, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, folder / "unpacked"], timeout=120, check=True)
        (folder / "unpacked").rename(UNPACKED)


class Cluster:
    """The processes of one cluster, and how to run Ceph's commands in it."""

    def __init__(self, programs: Path, folder: Path, address: str = LOOPBACK) -> None:
        self.programs, self.folder, self.address = programs, folder, address
        self.gateway_port, self.monitor_port = free_port(), free_port()
        self.libraries = next((programs / "usr/lib").glob("*-linux-gnu/ceph")).parent
        system = programs / "lib" / self.libraries.name
        self.environment = os.environ | {
            "LD_LIBRARY_PATH": f"{self.libraries}:{self.libraries}/ceph:{system}",
            "PATH": f"{programs}/usr/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(programs / "usr/lib/python3/dist-packages"),
        }
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.gateway_port}"

    def start(self) -> None:
        """Makes the cluster and one user, and waits until the gateway answers."""
        fsid = str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir()
        values = {"libraries": self.libraries, "monitor_port": self.monitor_port, "gateway_port": self.gateway_port}
        (self.folder / "ceph.conf").write_text(
            CONFIGURATION.format(fsid=fsid, folder=self.folder, address=self.address, **values)
        )
        self._make_keys()
        address, where = f"[v2:127.0.0.1:{self.monitor_port}/0]", self.folder / "monmap"
        self.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, where, configured=False)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", where)
        self._daemon("ceph-mon", "-i", "a")
        number = str(uuid.uuid4())
        self.run("ceph", "--connect-timeout", "30", "osd", "new", number, "0")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", number)
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("radosgw", "-n", "client.rgw")
        self._wait()
        keys = ("--access-key", "test-key", "--secret", "test-secret")
        self.run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "test", "--display-name", "t", *keys)

    def run(self, program: str, *arguments: object, configured: bool = True) -> None:
        where = ("-c", self.folder / "ceph.conf") if configured else ()
        done = subprocess.run(
            [program, *map(str, (*where, *arguments))], env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=LONGEST_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} {arguments} ended with {done.returncode}: {done.stderr[-500:]}")

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()
            daemon.wait()

    def _make_keys(self) -> None:
        for number, (name, capabilities) in enumerate(CAPABILITIES.items()):
            caps = [word for kind, allowed in capabilities.items() for word in ("--cap", kind, allowed)]
            create = () if number else ("--create-keyring",)
            self.run(
                "ceph-authtool", *create, self.folder / "keyring", "--gen-key", "-n", name, *caps, configured=False
            )

    def _daemon(self, program: str, *arguments: str) -> None:
        command = [program, "-c", str(self.folder / "ceph.conf"), *arguments, "-f"]
        with (self.folder / f"{program}.out").open("wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, preexec_fn=die_with_parent
                )
            )

    def _wait(self) -> None:
        deadline_s = time.monotonic() + LONGEST_S
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > deadline_s or any(daemon.poll() is not None for daemon in self.daemons):
                    said = (self.folder / "radosgw.out").read_text()[-500:]
                    raise RuntimeError(f"the gateway does not answer: {error}; {said}") from error
                time.sleep(0.2)


def die_with_parent() -> None:
    """Has this process killed when the one that started it ends, however it ends (prctl(2): PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_radosgw(address: str = LOOPBACK) -> Iterator[str]:
    """The endpoint's URL, at an address of this machine.

    Its one user has the keys of :func:`tests.support.s3_server.aws_variables`.
    """
    programs = root()
    if programs is None:
        raise RuntimeError("Ceph's programs are not here: `make ceph` unpacks them, where apt has them")
    folder = Path(tempfile.mkdtemp(prefix="freqgan-ceph-"))
    cluster = Cluster(programs, folder, address)
    try:
        cluster.start()
        yield cluster.endpoint
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        unpack()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")
    print(f"Ceph's programs are in {root()}")
