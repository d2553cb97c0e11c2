"""Flow experts on a Ray cluster: they wait for nobody, and give the bytes of those in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.run.checkpoints import find_checkpoint
from tests.campaigns.chaos import executors, killing
from tests.support.mixtures import FLOW_BELOW_GAN, FLOWS, SAMPLED
from tests.support.models import TINY_SIZES
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, UNSPARED, start_training, wait_for_step

LONG = pytest.mark.long
NO_IMAGE_STAGE: dict[str, Any] = {**PAIR, "image_stage": {**TINY_SIZES["image_stage"], "enabled": False}}


@pytest.fixture(scope="module")
def quiet_flows(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of flow experts that were trained in one process, without a stop."""
    return trained(tiny_run_settings(tmp_path_factory.mktemp("flows") / "run", small_shards, **FLOWS))[2]


def test_a_dead_flow_expert_is_replayed_and_the_other_has_nothing_of_it(
    quiet_flows: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, **FLOWS, executor="ray", snapshot_every=4, window=3)
    with killing({5: ["HL-LH-HH1"]}) as replaced, executors() as running:
        _, events, digest = trained(settings)
    assert digest == quiet_flows
    assert replaced == {"HL-LH-HH1"}
    assert [(recovery.stages, recovery.decision) for recovery in events.recoveries] == [(("HL-LH-HH1",), "replay")]
    kept = running[-1].replay_log.steps
    assert {4, 5} <= kept.keys()  # those since the snapshot; more where death came before it
    assert all(refs.metrics.keys() == {"LL1", "HL-LH-HH1"} for refs in kept.values())
    assert all(not any(refs.outputs.values()) and not refs.gradients for refs in kept.values())  # nothing is exchanged


@LONG
@pytest.mark.parametrize(
    "changes", [FLOWS, SAMPLED, FLOW_BELOW_GAN, NO_IMAGE_STAGE], ids=["flows", "sampled", "real", "no image stage"]
)
def test_ray_equals_inline_for_mixed_chains(
    changes: dict[str, Any], small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    changes = changes | UNSPARED
    inline = trained(tiny_run_settings(tmp_path / "inline", small_shards, **changes))[2]
    assert trained(tiny_run_settings(tmp_path / "ray", small_shards, executor="ray", **changes))[2] == inline


@LONG
def test_flow_experts_resume_across_executors(
    quiet_flows: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = tmp_path / "run"
    assert trained(tiny_run_settings(run, small_shards, max_steps=3, **FLOWS))[0].step == 3
    result, events, _ = trained(tiny_run_settings(run, small_shards, max_steps=5, executor="ray", **FLOWS, **UNSPARED))
    assert (events.first_step, result.step) == (3, 5)
    assert trained(tiny_run_settings(run, small_shards, **FLOWS))[2] == quiet_flows


@LONG
def test_flow_experts_whose_driver_was_killed_resume(quiet_flows: str, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(run, small_shards, 6, "ray", **FLOWS)
    wait_for_step(process, 3)
    process.kill()
    process.wait()
    again = start_training(run, small_shards, 6, "ray", **FLOWS)
    assert again.communicate()[0].split()[-3:] == ["done", "6", "False"]
    assert find_checkpoint(str(run)).digest() == quiet_flows


@LONG
def test_replicas_of_a_flow_expert_train_it(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    changes = {**FLOWS, "executor": "ray", "replicas": {"HL-LH-HH1": 2}}
    result, events, _ = trained(tiny_run_settings(tmp_path / "run", small_shards, **changes))
    single = trained(tiny_run_settings(tmp_path / "single", small_shards, **FLOWS))[1]
    assert result.step == 6
    for ours, theirs in zip(events.records, single.records, strict=True):
        assert ours.stages["LL1"]["loss"] == theirs.stages["LL1"]["loss"]
        assert ours.stages["HL-LH-HH1"]["loss"] == pytest.approx(theirs.stages["HL-LH-HH1"]["loss"], rel=1e-4)
