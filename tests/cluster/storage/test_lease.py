"""Leases: one holder at a time, taken over from the dead and from those who lost touch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.folder import Folder
from cluster.storage.lease import HeldError, Lease
from cluster.storage.process_identity import is_gone, own_identity
from freqgan.errors import InputError, RunError


def record(folder: Folder, **changes: object) -> None:
    """The record of a holder elsewhere."""
    holder = {"host": "elsewhere", "pid": 1, "epoch": 4, "until_s": time.time() + 60, "nonce": "x"} | changes
    folder.write("LEASE", json.dumps(holder).encode())


def test_one_holder_at_a_time_and_epochs_grow(folder: Folder) -> None:
    with Lease(folder, "LEASE", "run x", duration_s=1) as first:
        first.check()
        with pytest.raises(InputError, match=rf"run x is in use by process {os.getpid()} on .*choose another run"):
            Lease(folder, "LEASE", "run x", duration_s=1).__enter__()
        first.check()
    with Lease(folder, "LEASE", "run x", duration_s=1) as second:  # given back: no waiting
        assert second.epoch == first.epoch + 1
    with pytest.raises(RunError, match="the lease is lost"):
        first.check()


def test_a_holder_that_renews_keeps_it_beyond_its_duration(folder: Folder) -> None:
    with Lease(folder, "LEASE", "run x", duration_s=0.6) as lease:
        before = json.loads(folder.read("LEASE"))
        time.sleep(1.5)
        after = json.loads(folder.read("LEASE"))
        assert after["until_s"] > before["until_s"]
        assert after["epoch"] == before["epoch"]
        lease.check()


def test_a_record_that_ran_out_is_taken_over_and_the_former_holder_fenced(folder: Folder) -> None:
    record(folder)
    with Lease(folder, "LEASE", "run x", duration_s=0.5) as lease:
        assert lease.epoch == 5
        record(folder, epoch=6)  # somebody took it while this process was asleep
        lease._good_until_s = 0
        with pytest.raises(RunError, match=r"the lease is lost to process 1 on elsewhere \(epoch 6, ours was 5\)"):
            lease.check()
    assert json.loads(folder.read("LEASE"))["epoch"] == 6  # giving back does not touch what is not ours


@pytest.mark.parametrize("until_s", [1.0, time.time() - 60, time.time() + 30 * 86400], ids=["1970", "past", "a month"])
def test_clocks_of_others_decide_nothing(folder: Folder, until_s: float) -> None:
    """Neither does a clock that is ahead block a run, nor does one that is behind give a living holder's lease away."""
    record(folder, until_s=until_s)
    notes: list[str] = []
    with Lease(folder, "LEASE", "run x", duration_s=0.8, note=notes.append) as lease:
        assert lease.epoch == 5
    assert notes == [
        "run x was in use by process 1 on elsewhere; waits up to 0.8 s to see whether its lease is renewed"
    ]


def test_a_holder_that_renews_is_seen_whatever_its_clock_says(folder: Folder) -> None:
    record(folder, until_s=1.0)
    ending = threading.Event()

    def renew() -> None:
        number = 0
        while not ending.wait(0.3):
            record(folder, until_s=1.0, nonce=str(number := number + 1))

    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(HeldError, match="in use by process 1 on elsewhere, which renewed its lease a moment ago"):
            Lease(folder, "LEASE", "run x", duration_s=5).__enter__()
    finally:
        ending.set()
        other.join()


def test_what_was_given_back_is_taken_at_once(folder: Folder) -> None:
    record(folder, until_s=0)
    notes: list[str] = []
    with Lease(folder, "LEASE", "run x", duration_s=60, note=notes.append) as lease:
        assert (lease.epoch, notes) == (5, [])


def identity_of(pid: int) -> dict[str, object]:
    """That of a process of this machine, as its record has it."""
    code = "import json; from dataclasses import asdict;"
    code += "from cluster.storage.process_identity import own_identity, _start_of;"
    code += f"print(json.dumps(asdict(own_identity()) | {{'pid': {pid}, 'started': _start_of({pid})}}))"
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    identity: dict[str, object] = json.loads(done.stdout)
    return identity


def test_the_dead_of_this_machine_hold_nothing(folder: Folder) -> None:
    dying = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identity_of(dying.pid)
    dying.kill()
    os.waitid(os.P_PID, dying.pid, os.WEXITED | os.WNOWAIT)
    record(folder, host=socket.gethostname(), **identity)  # a zombie, for nobody has asked for its exit code
    notes: list[str] = []
    with Lease(folder, "LEASE", "run x", duration_s=20, note=notes.append):
        assert notes == []
    dying.communicate()
    record(folder, host=socket.gethostname(), **identity)
    with Lease(folder, "LEASE", "run x", duration_s=20, note=notes.append):
        assert notes == []


@pytest.mark.parametrize(
    ("change", "gone"),
    [({}, False), ({"started": 5}, True), ({"started": 0}, False), ({"boot_id": "x"}, False), ({"boot_id": ""}, False),
     ({"pid_namespace": 5}, False), ({"pid": 4_000_000}, True)],
    ids=["lives", "number used again", "start not known", "other boot", "boot not known", "other namespace", "none"],
)  # fmt: skip
def test_a_process_is_taken_for_gone_only_where_it_would_be_seen(change: dict[str, Any], gone: bool) -> None:
    assert is_gone(replace(own_identity(), **change)) is gone


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces take root")
def test_a_living_process_of_another_pid_namespace_keeps_its_lease(folder: Folder) -> None:
    """Two containers of one host name: neither sees the other's process, and both have one of number 1."""
    code = (
        "import sys; from cluster.storage.lease import Lease; from cluster.storage.folder import open_folder\n"
        "with Lease(open_folder(sys.argv[1]), 'LEASE', 'run x', 1.0): pass"
    )
    command = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", code, folder.url]
    with Lease(folder, "LEASE", "run x", duration_s=1.0) as ours:
        root = str(Path(__file__).parents[3])
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
        ours.check()
    assert done.returncode == 1
    assert "in use by process" in done.stderr, done.stderr


def test_an_own_record_under_another_tag_is_no_loss(folder: Folder) -> None:
    with Lease(folder, "LEASE", "run x", duration_s=60) as lease:
        lease._tag = "0" * 32  # as after a write whose answer was lost, and a store that gives tags anew
        lease._good_until_s = 0
        lease.check()
    assert json.loads(folder.read("LEASE"))["until_s"] == 0


def test_a_record_that_was_deleted_is_told(folder: Folder) -> None:
    with Lease(folder, "LEASE", "run x", duration_s=60) as lease:
        folder.delete("LEASE")
        lease._good_until_s = 0
        with pytest.raises(RunError, match=r"the record LEASE in .* \(epoch 1\) was deleted or damaged by somebody"):
            lease.check()


def test_a_record_of_a_later_version_is_respected(folder: Folder) -> None:
    record(folder, colour="blue")
    notes: list[str] = []
    with Lease(folder, "LEASE", "run x", duration_s=0.5, note=notes.append) as lease:
        assert (lease.epoch, len(notes)) == (5, 1)


def test_what_is_no_record_holds_nothing(folder: Folder) -> None:
    folder.write("LEASE", b"{torn")
    with Lease(folder, "LEASE", "run x", duration_s=20) as lease:
        assert lease.epoch == 1


def test_the_error_under_way_is_the_one_that_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Folder, name: str, data: bytes, tag: str | None) -> str | None:
        raise RunError("no space is left")

    def train() -> None:
        with Lease(folder, "LEASE", "run x", duration_s=60):
            monkeypatch.setattr(Folder, "write_if", full)
            raise RunError("cannot write metrics.jsonl")

    with pytest.raises(RunError, match="cannot write metrics"):
        train()
