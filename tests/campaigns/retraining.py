"""Retraining as a scheduler runs it: a bucket of shards that grows, a policy, and the command as a process.

``python -m tests.campaigns.retraining [MOMENTS]`` (``make retraining``) kills it at that many random moments in each of
three runs (the first model; a candidate that is good enough; one that is not), starts it again each time, and prints a
table: whether CURRENT ever named anything but a complete model, and what came of it in the end.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import numpy as np
import yaml
from PIL import Image

from cluster.data.packing import pack
from cluster.data.shard_index import index_shards
from cluster.run.model_registry import ModelRegistry
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import FreqganError
from tests.support.commands import ROOT, command_line
from tests.support.runs import write_small_shards
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server

MOMENTS = 20
GOOD_ENOUGH, NEVER_GOOD_ENOUGH = {"sliced_wasserstein": 10.0}, {"sliced_wasserstein": -0.99}
LONGEST_S = 600


def write_held_out(folder: Path) -> Path:
    """Shards of 130 pictures of noise: as many as a measurement of 64 needs."""
    rng = np.random.default_rng(5)
    (folder / "noise").mkdir(parents=True)
    for number in range(130):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "noise" / f"{number}.png")
    pack(str(folder / "noise"), str(folder / "held-out"))
    return folder / "held-out"


@dataclass
class Bench:
    """A model in a bucket of its own, its data, and the policy file.

    Attributes:
        folder: on this machine, for the policy and what is uploaded.
        small: shards to take the data from.
        held_out: shards to measure on.

    """

    folder: Path
    small: Path
    held_out: Path
    bucket: Folder = field(default_factory=lambda: open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}"))

    @property
    def store(self) -> ModelRegistry:
        return ModelRegistry(f"{self.bucket.url}/models/clothes")

    def grow(self, shards: int) -> None:
        """Makes the first ``shards`` shards all there are, the index last."""
        staging = self.folder / f"first-{shards}"
        staging.mkdir(exist_ok=True)
        for path in sorted(self.small.glob("*.tar"))[:shards]:
            shutil.copy(path, staging)
        index_shards(str(staging))
        for path in sorted(staging.iterdir(), key=lambda path: path.suffix != ".tar"):
            self.bucket.child("data").upload(path, path.name)

    def policy(self, **changes: object) -> Path:
        values: dict[str, object] = {
            "name": "clothes", "models": f"{self.bucket.url}/models", "data": f"{self.bucket.url}/data",
            "held_out": str(self.held_out), "settings": "smoke", "overrides": ["checkpoint_every=2"], "images": 48,
            "gate": GOOD_ENOUGH, "count": 64,
        }  # fmt: skip
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    def start(self, policy: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command_line("retrain", policy),
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def current_is_complete(self) -> bool:
        """Whether CURRENT, if there is one, names a version all of whose files verify."""
        try:
            current = self.store.current()
            return current is None or self.store.version(current.number).checkpoint().step > 0
        except FreqganError:
            return False


@dataclass
class Killed:
    """One run of a policy that was killed again and again."""

    killed: int = 0
    incomplete: int = 0
    codes: list[int] = field(default_factory=list)
    said: str = ""


def killed_until_done(bench: Bench, policy: Path, moments: int, rng: random.Random, quiet_s: float) -> Killed:
    """Kills at ``moments`` random moments of the time that a run takes, then lets it end.

    Begins with that of an undisturbed run; where one has ended with kills to spare, the next has less to do.
    """
    outcome = Killed()
    while True:
        process, began_s = bench.start(policy), time.monotonic()
        wait_s = rng.uniform(0.3, quiet_s) if outcome.killed < moments else LONGEST_S
        try:
            said, _ = process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if outcome.killed == moments:
                raise
            outcome.killed += 1
            outcome.incomplete += not bench.current_is_complete()
            continue
        quiet_s = min(quiet_s, time.monotonic() - began_s)
        outcome.incomplete += not bench.current_is_complete()
        outcome.codes.append(process.returncode)
        outcome.said += said
        if outcome.killed >= moments or process.returncode not in (0, 75):
            return outcome


def campaign(moments: int, then: Callable[[ModelRegistry], int] = lambda models: 0) -> int:
    """The table; 0 when CURRENT was never wrong, every run came to its right end, and ``then`` says so too."""
    wrong, rng = 0, random.Random(0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request otherwise
    with tempfile.TemporaryDirectory() as name, running_s3_server() as endpoint:
        os.environ.update(aws_variables(endpoint))
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        folder = Path(name)
        bench = Bench(folder, write_small_shards(folder), write_held_out(folder))
        quiet = Bench(folder, bench.small, bench.held_out)
        quiet.grow(1)
        began_s = time.monotonic()
        quiet.start(quiet.policy()).communicate(timeout=LONGEST_S)
        quiet_s = time.monotonic() - began_s
        print(f"an undisturbed run takes {quiet_s:.1f} s; killed at {moments} random moments of that in each")
        print(f"{'run':26} {'killed':>6} {'CURRENT incomplete':>19} {'ends with':>10} {'in use':>7}  versions")
        cases = (("the first", 1, GOOD_ENOUGH, 1), ("good enough", 2, GOOD_ENOUGH, 2), ("not", 3, NEVER_GOOD_ENOUGH, 2))
        for case, shards, gate, in_use in cases:
            bench.grow(shards)
            outcome = killed_until_done(bench, bench.policy(gate=gate), moments, rng, quiet_s)
            current, numbers = bench.store.current(), bench.store.numbers()
            used = current.number if current else None
            right = outcome.incomplete == 0 and used == in_use and numbers == list(range(1, shards + 1))
            wrong += not right or set(outcome.codes) != {0}
            codes = ",".join(map(str, sorted(set(outcome.codes))))
            print(
                f"{case:26} {outcome.killed:6} {outcome.incomplete:19} {codes:>10} {used!s:>7}  {numbers}", flush=True
            )
        print(json.dumps(bench.store.version(3).record.verdict.values()))
        wrong += then(bench.store)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else MOMENTS))
