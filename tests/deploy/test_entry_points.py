"""What the manifests run, run as it stands there: entry points as jobs of a local head, and the drain hook."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from cluster.run.checkpoints import find_checkpoint
from cluster.storage.folder import open_folder
from launch.commands.submit import pack_job
from launch.settings.load import load_settings
from tests.campaigns.retraining import GOOD_ENOUGH, NEVER_GOOD_ENOUGH, Bench
from tests.support.commands import ROOT
from tests.support.manifests import (
    head_container,
    island_entry_points,
    island_settings,
    manifest,
    manifest_variables,
)
from tests.support.ray_head import Head, running_head
from tests.support.runs import tiny_run_settings, trained
from tests.support.s3_server import BUCKET

TINY = {"width": 8, "coarse_width": 8}
TINY_ISLANDS = {
    "image_size": 16, "classes": 0, "batch": 8, "images": 24, "statistics_images": 64, "checkpoint_every": 2,
    "flow": {"coarse_network": TINY, "band_network": TINY},
}  # fmt: skip
"""Three steps of tiny networks, with the stages that the overlay has."""
MOUNTED = "/etc/freqgan"
SUBMIT = """
import sys
from pathlib import Path
from cluster.ray_engine.jobs import Jobs
jobs = Jobs(sys.argv[1])
name = jobs.submit(sys.argv[2], Path(sys.argv[3]), sys.argv[4], {}, "")
job = jobs.follow(name, sys.stdout.write)
sys.exit(job.exit_code if job.exit_code is not None else 99)
"""


def run_entry_point(head: Head, entry_point: str, mounted: Path, code: Path) -> subprocess.CompletedProcess[str]:
    """As the operator submits it; what would be mounted at /etc/freqgan lies in ``mounted``."""
    assert MOUNTED in entry_point
    here = entry_point.replace(MOUNTED, str(mounted))
    return subprocess.run(
        [sys.executable, "-c", SUBMIT, head.address, here, str(code), uuid.uuid4().hex],
        cwd=ROOT, env=os.environ | head.variables, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """This program, in place of an image that has it."""
    (tmp_path / "code").mkdir()
    pack_job(tmp_path / "code", tiny_run_settings(tmp_path / "unused", tmp_path / "unused"), installed=False)
    return tmp_path / "code"


def test_the_training_job(ray_head: Head, small_shards: Path, code: Path, tmp_path: Path) -> None:
    bucket = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in small_shards.iterdir():
        bucket.child("shards").upload(path, path.name)
    values = {"preset": "smoke", "data": f"{bucket.url}/shards/*.tar", "run": f"{bucket.url}/run", "executor": "ray",
              "device": "cpu", "plan": {"bands": "none"}, "max_failures": 0}  # fmt: skip
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(values))
    job = manifest("train.yaml")
    assert manifest_variables("train.yaml")["RAY_JOB_STOP_WAIT_TIME_S"] == "60"
    done = run_entry_point(ray_head, job["spec"]["entrypoint"], tmp_path, code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert find_checkpoint(f"{bucket.url}/run").step == 6


@pytest.mark.long
def test_the_jobs_of_islands_train_one_model_on_two_clusters(
    ray_head: Head, small_shards: Path, code: Path, tmp_path: Path
) -> None:
    bucket = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in small_shards.iterdir():
        bucket.child("shards").upload(path, path.name)
    values = island_settings() | TINY_ISLANDS
    values |= {"data": f"{bucket.url}/shards/*.tar", "run": f"{bucket.url}/run", "device": "cpu"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(values))
    with (
        TemporaryDirectory(prefix="rh-", dir="/tmp") as folder,
        running_head(Path(folder), **manifest_variables("train.yaml")) as other_head,
        ThreadPoolExecutor() as pool,
    ):
        jobs = zip((ray_head, other_head), island_entry_points().values(), strict=True)
        running = [pool.submit(run_entry_point, head, entry_point, tmp_path, code) for head, entry_point in jobs]
        for done in (one.result() for one in running):
            assert done.returncode == 0, done.stdout + done.stderr
    islands = find_checkpoint(f"{bucket.url}/run")
    assert islands.stage_steps == {"LL2": 3, "HL-LH-HH2": 3, "HL-LH-HH1": 3}
    together = values | {"run": str(tmp_path / "together"), "pace": "together", "executor": "inline"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(together))
    assert trained(load_settings(str(tmp_path / "settings.yaml"), []))[2] == islands.digest()


@pytest.mark.long
def test_the_retraining_job_promotes_refuses_and_finds_nothing_new(
    ray_head: Head, small_shards: Path, held_out: Path, code: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, small_shards, held_out)
    entry_point = manifest("retrain.yaml")["spec"]["entrypoint"]
    overrides = ["checkpoint_every=2", "executor=ray", "device=cpu", "plan.bands=[LL1,HL1]"]

    def retrain(shards: int, gate: dict[str, float]) -> str:
        bench.grow(shards)
        bench.policy(gate=gate, overrides=overrides)
        done = run_entry_point(ray_head, entry_point, tmp_path, code)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "version 1 is now in use" in retrain(1, GOOD_ENOUGH)
    assert "version 2 is not put in use" in retrain(2, NEVER_GOOD_ENOUGH)
    assert "nothing to do: 0 new images since version 2" in retrain(2, GOOD_ENOUGH)
    current = bench.store.current()
    assert current is not None
    assert (current.stack, bench.store.numbers()) == ((1,), [1, 2])


DRAINED = """
import subprocess, sys
import ray
from cluster.ray_engine.nodes import draining

@ray.remote(num_cpus=1)
class Busy:
    def ready(self):
        return True

ray.init(address="auto", log_to_driver=False)
busy = Busy.remote()  # a node that has nothing to do is gone at once
assert ray.get(busy.ready.remote())
node = ray.get_runtime_context().get_node_id()
before = node in draining()
subprocess.run(["sh", *sys.argv[1:]], check=True)
print("before", before, "after", node in draining())
"""


@pytest.mark.last
def test_the_drain_hook(ray_head: Head) -> None:
    """The head is to go afterwards."""
    hook = head_container(manifest("retrain.yaml"))["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[0] == "freqgan-drain"
    variables = os.environ | ray_head.variables | {
        "RAY_ADDRESS": ray_head.gcs_address, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run(sys.executable, "-c", DRAINED, str(ROOT / "k8s" / "drain.sh"), *hook[1:])
    assert "before False after True" in said
