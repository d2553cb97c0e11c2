"""Runs on object stores other than AWS: which are trusted, and a Ceph radosgw through everything a run does.

``python -m tests.campaigns.object_stores [--kills N] [--pairs N] [--moments N]`` (``make object-stores``) prints what
was tried on moto, on radosgw and on a store that deviates in every known way, with what came of it and how long it
took; then trains on radosgw, killed at N random moments; starts N pairs of trainings of one run at the same moment;
retrains, killed as well, promotes and rolls back; and asks for status, report and pictures.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from cluster.run.checkpoints import find_checkpoint
from cluster.run.model_registry import ModelRegistry
from cluster.storage.s3_access import access_of
from cluster.storage.storage_check import StorageCheck, check_storage
from freqgan.errors import FreqganError, InputError
from launch.console.exit_codes import STOPPED_EXIT_CODE
from tests.campaigns.chaos.drivers import Driver
from tests.campaigns.chaos.racing import CHECKPOINT_EVERY, racing_case, settings_of
from tests.campaigns.chaos.stages import quiet_of
from tests.campaigns.retraining import campaign as retraining
from tests.support.commands import Outcome, run_process
from tests.support.deviating_s3 import DEVIATIONS, running_deviation
from tests.support.s3_server import BUCKET, STORE_VARIABLE, aws_variables, running_s3_server

LONGEST_S = 10.0
"""In which a store must be found out."""


@contextmanager
def store(kind: str) -> Iterator[str]:
    """The endpoint of a server of that kind with an empty bucket; this process and its children know it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_VARIABLE, kind)
        with running_s3_server() as endpoint:
            for name, value in aws_variables(endpoint).items():
                patch.setenv(name, value)
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
            yield endpoint


# -- which stores are trusted ------------------------------------------------------------------


def found_out(name: str) -> bool:
    """Prints the row of the store that the environment names; whether it took at most LONGEST_S."""
    began_s = time.monotonic()
    try:
        check = check_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
        said, right = described(check), True
    except FreqganError as error:
        said, right = f"cannot be written to: {error}", False
    took_s = time.monotonic() - began_s
    print(f"{name:32} {took_s:5.1f} s  {said}", flush=True)
    return right and took_s <= LONGEST_S


def described(check: StorageCheck) -> str:
    if check.missing:
        return "refused: " + "; ".join(f"{one.name}: {one.detail}" for one in check.missing)
    access = access_of(BUCKET)
    details = [one.detail for one in check.capabilities if one.holds and one.detail]
    details += [f"cannot {one.name}" for one in check.capabilities if not one.holds]
    details += ["the bucket stands in the host name"] * (access.addressing == "virtual")
    return ", ".join(["trusted", *details])


def stores(kinds: tuple[str, ...]) -> int:
    """The table; how many rows are wrong."""
    wrong = 0
    print(f"{'store':32} {'after':>7}  what came of it")
    for kind in kinds:
        with store(kind):
            wrong += not found_out(kind)
    with store("moto") as endpoint:
        for name, (_, _, outcome, _) in DEVIATIONS.items():
            with running_deviation(endpoint, name) as (_, variables), pytest.MonkeyPatch.context() as patch:
                for variable, value in variables.items():
                    patch.setenv(variable, value)
                wrong += not found_out(f"{name} ({outcome})")
    return wrong


# -- a run through everything ------------------------------------------------------------------


def killed_and_resumed(folder: Path, kills: int) -> int:
    """Trains in the bucket, killed at random moments and resumed; 0 where it gives the bytes of a run on a disk."""
    rng, run = random.Random("object store"), f"s3://{BUCKET}/killed"
    settings, killed = settings_of(folder, run), 0
    for _ in range(kills):
        driver = Driver(settings)
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0, 6))
        else:
            driver.wait_for(last_step(run) + 1)
            time.sleep(rng.uniform(0, 2))
        driver.signal(signal.SIGKILL)
        killed += driver.exit_code() == -signal.SIGKILL
    driver = Driver(settings)
    driver.wait_for(last_step(run) + 2 * CHECKPOINT_EVERY)
    driver.signal(signal.SIGTERM)
    code = driver.exit_code()
    checkpoint = find_checkpoint(run)
    equal = checkpoint.digest() == quiet_of(folder).digest(checkpoint.step)
    print(f"killed {killed} times, then {checkpoint.step} steps, exit code {code}, equal to a run on a disk: {equal}")
    return int(killed != kills or code != STOPPED_EXIT_CODE or not equal)


def last_step(run: str) -> int:
    try:
        return find_checkpoint(run).step
    except InputError:
        return 0


def asked(folder: Path, run: str, command_line: Callable[..., Outcome] = run_process) -> int:
    """Status, report and pictures of ``run`` by the command line; how many of the commands fail."""
    wrong = 0
    commands: tuple[tuple[object, ...], ...] = (
        ("status", run),
        ("report", run),
        ("generate", run, "--count", 4, "--out", folder / "pictures-of-it"),
        ("generate", run, "--count", 4, "--out", f"s3://{BUCKET}/pictures-of-it"),
        ("digest", run),
        ("storage", "check", run),
    )
    for command in commands:
        outcome = command_line(*command)
        last = (outcome.out.strip().splitlines() or outcome.err.strip().splitlines() or [""])[-1].strip()
        print(f"freqgan {' '.join(map(str, command[:2])):24} exit code {outcome.code}: {last[:90]}", flush=True)
        wrong += outcome.code != 0
    return wrong


def promoted_and_rolled_back(models: ModelRegistry) -> int:
    """By the command line; 0 where the versions in use are the right ones."""
    in_use = []
    url = models.folder.url
    for command in (("promote", url, 1), ("promote", url, 2), ("rollback", url), ("list", url), ("show", url)):
        outcome = run_process("models", *command)
        current = models.current()
        in_use.append(current.number if current else 0)
        print(f"freqgan models {command[0]:10} exit code {outcome.code}, in use: {in_use[-1]}", flush=True)
        if outcome.code:
            print(outcome.err)
            return 1
    return int(in_use != [1, 2, 1, 1, 1])


def campaign(kills: int, pairs: int, moments: int, kind: str) -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request otherwise
    wrong = stores(("moto", "radosgw") if kind == "radosgw" else (kind,))
    os.environ[STORE_VARIABLE] = kind
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with store(kind):
            wrong += killed_and_resumed(folder, kills)
            wrong += asked(folder, f"s3://{BUCKET}/killed")
        row = racing_case(folder, 2 * pairs)
        print(f"{row.moments} pairs at once: {row.wrong or 'one trains, the other is refused, every time'}", flush=True)
        wrong += bool(row.wrong) or row.moments != pairs
    wrong += retraining(moments, promoted_and_rolled_back)
    print("all right" if not wrong else f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--store", choices=("moto", "radosgw"), default="radosgw")
    given = parser.parse_args()
    sys.exit(campaign(given.kills, given.pairs, given.moments, given.store))
