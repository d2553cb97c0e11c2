"""An image stage with a companion on a Ray cluster: one that dies in the middle of a pool's life is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from freqgan.model.stage_names import IMAGE_STAGE
from tests.campaigns.chaos import killing
from tests.support.companions import stage_values
from tests.support.runs import tiny_run_settings, trained


@pytest.mark.long
@pytest.mark.parametrize("plan", [{}, {"bands": "none"}], ids=["blended", "alone"])
def test_a_dead_image_stage_with_a_companion_is_replayed(
    plan: dict[str, str], small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    changes = {"image_stage": stage_values("diffusion", pool={"every": 4, "size": 8}), "plan": plan}
    inline = trained(tiny_run_settings(tmp_path / "inline", small_shards, **changes))[2]
    settings = tiny_run_settings(tmp_path / "ray", small_shards, **changes, executor="ray", snapshot_every=3, window=2)
    with killing({5: [IMAGE_STAGE]}) as replaced:
        _, events, digest = trained(settings)
    assert digest == inline
    assert replaced == {IMAGE_STAGE}
    assert [(recovery.stages, recovery.decision) for recovery in events.recoveries] == [((IMAGE_STAGE,), "replay")]
