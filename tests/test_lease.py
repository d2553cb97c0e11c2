"""Leases: one holder at a time, taken over from the dead and from those who lost touch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from cluster.lease import Lease
from cluster.storage import Folder
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
    record(folder, until_s=time.time() - 1)
    with Lease(folder, "LEASE", "run x", duration_s=5) as lease:
        assert lease.epoch == 5
        record(folder, epoch=6)  # somebody took it while this process was asleep
        lease._good_until_s = 0
        with pytest.raises(RunError, match=r"the lease is lost to process 1 on elsewhere \(epoch 6, ours was 5\)"):
            lease.check()
    assert json.loads(folder.read("LEASE"))["epoch"] == 6  # giving back does not touch what is not ours


def test_waits_for_a_record_to_run_out(folder: Folder) -> None:
    record(folder, until_s=time.time() + 1.2)
    notes: list[str] = []
    started = time.monotonic()
    with Lease(folder, "LEASE", "run x", duration_s=3, note=notes.append) as lease:
        assert 1 < time.monotonic() - started < 3
        assert lease.epoch == 5
    assert notes == ["run x was in use by process 1 on elsewhere; waits up to 3 s for its lease"]


def test_the_dead_of_this_machine_hold_nothing(folder: Folder) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    record(folder, host=socket.gethostname(), pid=dead.pid)
    started = time.monotonic()
    with Lease(folder, "LEASE", "run x", duration_s=20):
        assert time.monotonic() - started < 5


def test_what_is_no_record_holds_nothing(folder: Folder) -> None:
    folder.write("LEASE", b"{torn")
    with Lease(folder, "LEASE", "run x", duration_s=20) as lease:
        assert lease.epoch == 1
