"""Two coordinators of one run name, on an S3 server: who may commit."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

from cluster.run.checkpoints import find_checkpoint
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from launch.console.exit_codes import STOPPED_EXIT_CODE
from tests.campaigns.chaos.drivers import Driver
from tests.campaigns.chaos.rows import Row
from tests.campaigns.chaos.stages import quiet_of, s3_bucket
from tests.campaigns.chaos.trainings import pictures

LEASE_S = 3.0
CHECKPOINT_EVERY = 5


def attempts(run: str) -> dict[int, set[str]]:
    """The attempts of every step that have a manifest."""
    found: dict[int, set[str]] = {}
    for name in open_folder(run).child("checkpoints").list():
        parts = name.split("/")
        if parts[-1] == "manifest.json":
            found.setdefault(int(parts[0]), set()).add(parts[1])
    return found


def settings_of(folder: Path, run: str) -> dict[str, Any]:
    return {
        "run": run, "data": pictures(folder), "executor": "inline", "checkpoint_every": CHECKPOINT_EVERY,
        "keep_checkpoints": 1000,
    }  # fmt: skip


def racing_case(folder: Path, moments: int) -> Row:
    """Two begin at the same moment: one trains, the other is refused with exit code 2 and commits nothing."""
    row, quiet = Row("racing"), quiet_of(folder)
    with s3_bucket() as bucket:
        for number in range(max(1, moments // 2)):
            settings = settings_of(folder, f"{bucket}/race{number}")
            pair = [Driver(settings, {"lease_s": LEASE_S, "held": True}) for _ in range(2)]
            if not all(driver.wait_ready() for driver in pair):
                row.wrong.append("a driver did not start")
                break
            for driver in pair:
                driver.go()
            while all(driver.process.poll() is None for driver in pair):
                time.sleep(0.1)
            refused, winner = sorted(pair, key=lambda driver: driver.process.poll() is None)
            winner.wait_for(CHECKPOINT_EVERY + 1)
            winner.signal(signal.SIGTERM)
            codes = refused.exit_code(), winner.exit_code()
            if codes != (InputError.exit_code, STOPPED_EXIT_CODE):
                row.wrong.append(f"exit codes {codes}: {refused.said('error')}")
            if refused.said("step") or len({a for of_step in attempts(settings["run"]).values() for a in of_step}) != 1:
                row.wrong.append("both have trained or committed")
            checkpoint = find_checkpoint(settings["run"])
            row.compare(checkpoint.digest(), quiet.digest(checkpoint.step))
            row.moments += 1
    row.notes.append("the other one is refused with exit code 2")
    return row


def fenced_case(folder: Path, moments: int) -> Row:
    """One is stopped for longer than its lease, another takes over, the first goes on: nothing it commits counts."""
    row, quiet, rng = Row("fenced"), quiet_of(folder), random.Random("fenced")
    late: list[int] = []
    with s3_bucket() as bucket:
        for number in range(max(1, moments // 4)):
            settings = settings_of(folder, f"{bucket}/fenced{number}")
            first = Driver(settings, {"lease_s": LEASE_S})
            first.wait_for(CHECKPOINT_EVERY + 1)
            time.sleep(rng.uniform(0, 2))
            first.signal(signal.SIGSTOP)
            before = attempts(settings["run"])
            second = Driver(settings, {"lease_s": LEASE_S})
            second.wait_for(max(before) + 2 * CHECKPOINT_EVERY)
            taken_over = attempts(settings["run"])
            first.signal(signal.SIGCONT)
            code = first.exit_code()
            second.wait_for(second.step + CHECKPOINT_EVERY)
            second.signal(signal.SIGTERM)
            if (codes := (code, second.exit_code())) != (3, STOPPED_EXIT_CODE):
                row.wrong.append(f"exit codes {codes}: {first.said('error')} {second.said('error')}")
            theirs = {a for of_step in before.values() for a in of_step}
            late.append(
                sum(bool(a & theirs) for step, a in attempts(settings["run"]).items() if step not in taken_over)
            )
            checkpoint = find_checkpoint(settings["run"])
            epoch = json.loads(open_folder(settings["run"]).read("checkpoints/LATEST"))["epoch"]
            if checkpoint.manifest["epoch"] != 2 or epoch != 2:
                row.wrong.append(f"the newest checkpoint is of epoch {checkpoint.manifest['epoch']}, LATEST of {epoch}")
            row.compare(checkpoint.digest(), quiet.digest(checkpoint.step))
            row.moments += 1
    row.notes.append(
        f"lease of {LEASE_S:g} s; {sum(late)} manifests of the fenced one came late, none of them is ever read"
    )
    return row
