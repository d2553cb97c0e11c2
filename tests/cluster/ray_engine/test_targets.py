"""Packed targets on a Ray cluster: the bytes of one process, whoever dies."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from cluster.data.shard_index import build_index
from cluster.evaluation.image_features import FeatureJob, feature_policy, pooled_here
from cluster.ray_engine.feature_tasks import pooled_by_tasks
from freqgan.errors import InputError
from tests.campaigns.chaos import executors, killing
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, start_training, wait_for_step
from tests.support.shards import write_described_shards

CONDITIONED: dict[str, Any] = {
    **PAIR,
    "classes": 2,
    "conditioning": {
        "kinds": "class,embedding,caption",
        "embedding_length": 5,
        "caption_bytes": 16,
        "caption_width": 16,
        "caption_layers": 1,
        "drop": 0.25,
    },
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_described_shards(tmp_path_factory.mktemp("described"))


@pytest.fixture(scope="module")
def undisturbed(described: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an inline run."""
    return trained(tiny_run_settings(tmp_path_factory.mktemp("inline") / "run", described, **CONDITIONED))[2]


@pytest.mark.long
def test_a_dead_stage_is_replayed_with_its_targets(
    undisturbed: str, described: Path, tmp_path: Path, ray_cluster: None
) -> None:
    settings = tiny_run_settings(tmp_path / "run", described, **CONDITIONED, executor="ray", window=2)
    with killing({4: ["HL1"]}) as replaced, executors():
        _, events, digest = trained(settings)
    assert replaced == {"HL1"}
    assert [recovery.decision for recovery in events.recoveries] == ["replay"]
    assert digest == undisturbed


def test_a_killed_run_resumes_with_its_targets(undisturbed: str, described: Path, tmp_path: Path) -> None:
    with start_training(tmp_path / "run", described, 6, lease_s=1.0, **CONDITIONED) as process:
        wait_for_step(process, 5)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    _, events, digest = trained(tiny_run_settings(tmp_path / "run", described, **CONDITIONED))
    assert events.first_step in (2, 4)
    assert digest == undisturbed


def test_tasks_compute_the_features_of_one_process(described: Path, tmp_path: Path, ray_cluster: None) -> None:
    settings = tiny_run_settings(tmp_path / "run", described, conditioning={"kinds": "features"}, executor="ray")
    job = FeatureJob(build_index(str(described)), feature_policy(settings), "")
    here, by_tasks = list(pooled_here(job)), list(pooled_by_tasks(job, settings, None))
    assert [shard.shape for shard in by_tasks] == [(16, 448)] * 3
    assert all(np.array_equal(one, other) for one, other in zip(here, by_tasks, strict=True))
    assert ray.is_initialized()  # the cluster was there before


def test_what_a_task_meets_is_an_error_of_ours(described: Path, tmp_path: Path, ray_cluster: None) -> None:
    settings = tiny_run_settings(tmp_path / "run", described, conditioning={"kinds": "features"}, executor="ray")
    job = FeatureJob(build_index(str(described)), feature_policy(settings), "none.pth")
    with pytest.raises(InputError, match=r"conditioning\.network"):
        list(pooled_by_tasks(job, settings, None))
