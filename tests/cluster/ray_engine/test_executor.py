"""Trainings on a Ray cluster give the bytes of those in one process: every plan, cluster and way to end."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_engine.address import LOOPBACK_VARIABLE
from cluster.run.checkpoints import find_checkpoint
from tests.campaigns.chaos.processes import below, listening
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, UNSPARED, run_script, start_training, wait_for_step

LONG = pytest.mark.long
LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
"""How addresses of 127.0.0.1 and ::1 begin in /proc/net."""


@LONG
def test_ray_equals_inline(quiet: str, small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    """With the usual window; tests of failures below use smaller ones."""
    settings = tiny_run_settings(tmp_path / "run", small_shards, executor="ray", **UNSPARED)
    result, events, digest = trained(settings)
    assert digest == quiet
    assert events.checkpoints == [2, 4, 6]
    assert result.step == 6


VARIANTS: dict[str, dict[str, Any]] = {
    "two levels, cycles, an ensemble, joint high bands, labels": {
        "levels": 2, "classes": 2, "plan": {"cycles": 2, "low_gans": {2: 2}, "high_gans": {1: 1, 2: 1}},
        "image_stage": {"alpha": "per_band"},
    },
    "cycles and ensembles": {"plan": {"cycles": 2, "low_gans": {1: 2}, "high_gans": {1: 4}}},
    "two levels, joint high bands, labels": {
        "levels": 2, "classes": 2, "plan": {"high_gans": {1: 1, 2: 1}}, "image_stage": {"alpha": "per_band"},
    },
    "no feedback": {"feedback": {"weight": 0.0}, **PAIR},
    "float16 between stages": {"exchange": "float16", **PAIR},
    "one GAN": {"plan": {"bands": ["LL1"]}},
    "no GANs": {"plan": {"bands": "none"}},
}  # fmt: skip
SHORT_VARIANTS = ("two levels, cycles, an ensemble, joint high bands, labels",)
"""It has something of most others."""


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[LONG] * (name not in SHORT_VARIANTS)) for name in VARIANTS]
)
def test_ray_equals_inline_for_other_plans(variant: str, small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    changes = VARIANTS[variant] | {"max_steps": 3} | UNSPARED
    inline = trained(tiny_run_settings(tmp_path / "inline", small_shards, **changes))[2]
    assert trained(tiny_run_settings(tmp_path / "ray", small_shards, executor="ray", **changes))[2] == inline


@LONG
def test_resume_in_steps_and_across_executors_equals_one_go(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = tmp_path / "run"
    assert trained(tiny_run_settings(run, small_shards, max_steps=3, **PAIR))[0].step == 3
    result, events, _ = trained(tiny_run_settings(run, small_shards, max_steps=5, executor="ray", **PAIR, **UNSPARED))
    assert (events.first_step, result.step) == (3, 5)
    assert "resumes after step 3" in events.notes[-1]
    assert trained(tiny_run_settings(run, small_shards, **PAIR))[2] == quiet_pair


@LONG
def test_kill_9_of_a_driver_and_the_same_command_at_once(quiet_pair: str, small_shards: Path, tmp_path: Path) -> None:
    """What the killed run's Ray has left running must not be in the way."""
    run = tmp_path / "run"
    process = start_training(run, small_shards, 6, "ray", **PAIR)
    wait_for_step(process, 3)
    process.kill()
    process.wait()
    again = start_training(run, small_shards, 6, "ray", **PAIR)
    assert again.communicate()[0].split()[-3:] == ["done", "6", "False"]
    assert find_checkpoint(str(run)).digest() == quiet_pair


@pytest.mark.parametrize("executor", [pytest.param("inline", marks=LONG), "ray"])
def test_sigterm_ends_at_a_step_boundary_with_a_checkpoint(executor: str, small_shards: Path, tmp_path: Path) -> None:
    """A Ray of the run's own listens on loopback alone until then, and is gone afterwards."""
    run = tmp_path / "run"
    process = start_training(run, small_shards, 1000, executor, plan={"bands": "none"}, **UNSPARED)
    wait_for_step(process, 1)
    if executor == "ray":
        places = listening([process.pid, *below(process.pid)])
        assert len(places) > 3
        assert [place for place in places if not place.startswith(LOOPBACK)] == []
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a group and its process both get one
    said, _ = process.communicate()
    assert process.returncode == 0
    reason, step, left_running = said.split()[-3:]
    assert reason == "stopped"
    assert 1 <= int(step) < 1000
    assert find_checkpoint(str(run)).step == int(step)
    assert left_running == "False"


@LONG
def test_three_nodes_give_the_same_digest(quiet_pair: str, small_shards: Path, tmp_path: Path) -> None:
    """In a process of its own: one process can be the driver of one cluster only."""
    script = """
import sys
import ray
from ray.cluster_utils import Cluster
from tests.support.runs import tiny_run_settings, trained
sizes = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=sizes)
for _ in range(2):
    cluster.add_node(**sizes)
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
from cluster.ray_engine.slots import Allocation
seats = {}
place = Allocation._place
Allocation._place = lambda self: seats.update(place(self)) or dict(seats)
pair = {"plan": {"bands": ["LL1", "HL1"]}, "max_failures": 0}
digest = trained(tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", **pair))[2]
print(len({seat.node_id for seat in seats.values()}), digest)
ray.shutdown()
cluster.shutdown()
"""
    assert run_script(script, tmp_path / "run", small_shards)[-2:] == ["3", quiet_pair]


def test_stages_share_whole_gpus_of_a_placement_group(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    """GPUs that Ray believes in: where the stages sit is real, what they compute on is the CPU."""
    script = """
import os, sys
import ray
from ray.cluster_utils import Cluster
os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
from tests.support.runs import tiny_run_settings, trained
def node(gpus, market):
    labels = {"ray.io/accelerator-type": "T4", "ray.io/market-type": market}
    sizes = {"num_cpus": 1, "num_gpus": gpus, "object_store_memory": 100 * 2**20}
    return sizes | {"labels": labels, "include_dashboard": False}

cluster = Cluster(initialize_head=True, head_node_args=node(1, "on-demand"))
cluster.add_node(**node(2, "spot"))
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
from cluster.ray_engine.executor import RayExecutor
seats, close = {}, RayExecutor.close
def look(self):
    seats.update(self.workers.allocation.by_actor)
    print("free", ray.available_resources().get("GPU", 0))
    close(self)
RayExecutor.close = look
digest = trained(tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", device="auto", max_failures=0))[2]
image = next(n["Labels"] for n in ray.nodes() if n["NodeID"] == seats["image"].node_id)
print(len({(seat.node_id, seat.gpu) for seat in seats.values()}), image["ray.io/market-type"], digest)
ray.shutdown()
cluster.shutdown()
"""
    assert run_script(script, tmp_path / "run", small_shards)[-5:] == ["free", "0", "3", "on-demand", quiet]


@LONG
def test_a_ray_that_does_not_start_is_started_again_and_then_an_error() -> None:
    script = """
import os, sys, threading
folder = sys.argv[2]
os.environ |= {"RAY_TMPDIR": f"{folder}/ray", sys.argv[1]: "0"}
from cluster.ray_engine import connection as ray_start
from freqgan.errors import RunError
open(f"{folder}/ray", "w").close()  # a file where Ray wants a folder
try:
    ray_start.start_local_ray(100 * 2**20, cpus=1)
except RunError as error:
    print("3 times in a row" in str(error) and "executor=inline" in str(error))
threading.Timer(1, os.remove, [f"{folder}/ray"]).start()
ray_start.start_local_ray(100 * 2**20, cpus=1)
print(ray_start.ray.cluster_resources()["CPU"])
ray_start.ray.shutdown()
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # Ray's sockets lie in it: a short path
        assert run_script(script, LOOPBACK_VARIABLE, folder) == ["True", "1.0"]
