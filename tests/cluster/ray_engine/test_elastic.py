"""A cluster that gains and loses machines while a run is trained: the same bytes come out.

Each in a process of its own: one process can be the driver of one cluster only.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, run_script

pytestmark = pytest.mark.alone

TELL = """
import sys

def tell(*lines):  # in a file: Ray prints its own account of a machine that is lost, at any moment
    with open(sys.argv[1] + ".told", "a") as file:
        file.writelines(f"{line}\\n" for line in lines)
"""

PRELUDE = """
import os, sys, time
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
from cluster.ray_engine import executor as ray_executor
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.training.train import train
from tests.support.runs import Events, tiny_run_settings
from tests.support.scripts import PAIR

ray_executor.ARRANGE_EVERY_S = 0.0
STORE = {"object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **STORE})
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")


class Script(Events):
    \"\"\"Does something to the cluster after some steps, once.\"\"\"

    def __init__(self, actions):
        super().__init__()
        self.actions = actions

    def on_step(self, record):
        super().on_step(record)
        if record.step in self.actions:
            self.actions.pop(record.step)()


def settings(**changes):
    return tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", **{**PAIR, "max_steps": 12, **changes})


def drain(node_id):
    deadline_ms = int(1000 * time.time()) + 600_000
    GcsClient(address=cluster.address).drain_node(node_id, 2, "spot notice", deadline_ms)


def run(actions, **changes):
    events = Script(actions)
    train(settings(**changes), events)
    tell(*(f"{r.decision}:{','.join(r.stages)}:{r.step}" for r in events.recoveries))
    tell(find_checkpoint(sys.argv[1]).digest())
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def quiet_dozen(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run of twelve steps."""
    run = tmp_path_factory.mktemp("elastic") / "run"
    return trained(tiny_run_settings(run, small_shards, max_steps=12, **PAIR))[2]


def told(script: str, run: Path, shards: Path) -> list[str]:
    """What a script tells, line by line."""
    run_script(TELL + script, run, shards)
    return run.with_name(f"{run.name}.told").read_text().splitlines()


@pytest.mark.long
def test_stages_move_to_a_new_machine_and_off_one_that_is_drained(
    quiet_dozen: str, small_shards: Path, tmp_path: Path
) -> None:
    """The pipeline is stopped at a checkpoint; stages that stay keep their process."""
    script = """
nodes = []

def grow():
    nodes.append(cluster.add_node(num_cpus=8, **STORE))

run({3: grow, 7: lambda: drain(nodes[0].node_id)}, checkpoint_every=4, window=2)
"""
    *moves, digest = told(PRELUDE + script, tmp_path / "run", small_shards)
    assert digest == quiet_dozen
    assert [move.split(":")[0] for move in moves] == ["move", "move"]
    there, back = (set(move.split(":")[1].split(",")) for move in moves)
    assert there == back
    assert there


@pytest.mark.long
def test_a_run_whose_own_machine_is_drained_stops_at_a_checkpoint_and_asks_to_be_run_again(
    small_shards: Path, tmp_path: Path
) -> None:
    script = """
import subprocess
config = sys.argv[1] + ".yaml"
with open(config, "w") as file:
    file.write(settings(images=32_000, max_steps=4000, checkpoint_every=2).model_dump_json())
environment = os.environ | {"RAY_ADDRESS": cluster.address}
driver = subprocess.Popen([sys.executable, "-m", "launch", "train", config], env=environment)
while driver.poll() is None and not has_checkpoints(sys.argv[1]):
    time.sleep(0.5)
drain(ray.get_runtime_context().get_node_id())
tell(driver.wait(120), 2 <= find_checkpoint(sys.argv[1]).step < 4000)
"""
    assert told(PRELUDE + script, tmp_path / "run", small_shards) == ["75", "True"]


def test_a_lost_machine_takes_all_back_to_the_checkpoint_on_those_that_are_left(
    quiet_dozen: str, small_shards: Path, tmp_path: Path
) -> None:
    script = """
node = cluster.add_node(num_cpus=2, **STORE)
run({6: lambda: cluster.remove_node(node, allow_graceful=False)}, checkpoint_every=2, window=2, max_failures=0)
"""
    *recoveries, digest = told(PRELUDE + script, tmp_path / "run", small_shards)
    assert digest == quiet_dozen
    assert [recovery.split(":")[0] for recovery in recoveries] == ["roll back"]


@pytest.mark.long
def test_a_machine_that_cannot_be_had_is_waited_for(small_shards: Path, tmp_path: Path) -> None:
    script = """
import types
from cluster.ray_engine import slots as ray_seats
from freqgan.errors import RunError
ray.shutdown(); cluster.shutdown()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **STORE})
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
try:
    train(settings(machines_timeout_s=0), Events())
except RunError as error:
    tell("machines_timeout_s" in str(error), error.exit_code)
polls = []

def sleep(seconds):
    polls.append(seconds)
    cluster.add_node(num_cpus=1, **STORE) if len(polls) == 2 else time.sleep(seconds)

ray_seats.time = types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
run({}, machines_timeout_s=200, max_steps=1)
tell(len(polls) > 1)
"""
    named, exit_code, *_, waited = told(PRELUDE + script, tmp_path / "run", small_shards)
    assert (named, exit_code, waited) == ("True", "3", "True")


@pytest.mark.long
def test_a_ray_of_our_own_that_loses_its_head_is_started_anew(
    quiet_dozen: str, small_shards: Path, tmp_path: Path
) -> None:
    script = """
import os, signal, sys, time
from pathlib import Path
from cluster.run.checkpoints import find_checkpoint
from cluster.training.train import train
from tests.campaigns.chaos.processes import below, command_of
from tests.support.runs import Events, tiny_run_settings
from tests.support.scripts import PAIR

class KillHead(Events):
    def on_step(self, record):
        super().on_step(record)
        if record.step == 5 and not self.recoveries:
            os.kill(head(), signal.SIGKILL)
        if record.step >= 5 and not self.recoveries:
            time.sleep(1)  # it would be over before anybody misses the head

def head():  # the control service of the Ray that this process has started
    return next(pid for pid in below(os.getpid()) if "gcs_server" in command_of(pid).partition(" ")[0])

events = KillHead()
changes = {"max_steps": 12, "window": 2, "heartbeat_timeout_s": 3, "max_failures": 0}
train(tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", **PAIR, **changes), events)
tell(*(r.decision for r in events.recoveries), "head" in events.recoveries[0].cause)
tell(find_checkpoint(sys.argv[1]).digest())
"""
    assert told(script, tmp_path / "run", small_shards) == ["roll back", "True", quiet_dozen]
