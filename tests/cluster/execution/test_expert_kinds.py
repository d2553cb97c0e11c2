"""Mixtures of kinds of experts, stopped and resumed: the same bytes as in one go, and images from what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from tests.support.runs import tiny_run_settings, trained

VELOCITY = {"width": 8, "coarse_width": 8}
FLOW: dict[str, Any] = {"coarse_network": VELOCITY, "band_network": VELOCITY}
JOINT = {"strict_nesting": True, "high_gans": {1: 1}}
APART = {"image_stage": {"enabled": False}}
ALL_FLOW: dict[str, Any] = {"experts": {"default": "flow"}, "plan": JOINT, "flow": FLOW, **APART}
SAMPLES = {**FLOW, "outputs": "samples", "output_evaluations": 2}
MIXTURES: dict[str, dict[str, Any]] = {
    "flow experts": ALL_FLOW,
    "flow experts with a guide": {**ALL_FLOW, "flow": {**FLOW, "guide_at": 0.02}},
    "flow experts on crops": {**ALL_FLOW, "flow": {**FLOW, "crop": {1: 4}}},
    "one flow expert of pixels": {**ALL_FLOW, "levels": 0, "plan": {}},
    "flow experts with labels": {**ALL_FLOW, "classes": 2},
    "flow experts and an image stage": {"experts": {"default": "flow"}, "plan": JOINT, "flow": SAMPLES},
    "gans above the real band of a flow expert": {"experts": {"low": "flow"}, "flow": FLOW},
    "gans above samples of a flow expert": {"experts": {"low": "flow"}, "flow": SAMPLES},
    "gans above two flow experts": {
        "levels": 2, "experts": {"LL2": "flow", "HL-LH-HH2": "flow"}, "flow": FLOW,
        "plan": {"strict_nesting": True, "high_gans": {1: 1, 2: 1}},
    },
    "gans that exchange nothing": {**APART, "teacher_forcing": {"start": 1, "end": 1}},
    "gans without an image stage": APART,
}  # fmt: skip


LONG = (
    "flow experts",
    "flow experts on crops",
    "flow experts with labels",
    "gans above the real band of a flow expert",
)
"""Others have what these have, and more."""


@pytest.mark.parametrize(
    "mixture", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in MIXTURES]
)
def test_a_resumed_run_has_the_bytes_of_one_that_was_not_stopped(
    mixture: str, small_shards: Path, tmp_path: Path
) -> None:
    changes = {"max_steps": 4, **MIXTURES[mixture]}
    _, events, digest = trained(tiny_run_settings(tmp_path / "whole", small_shards, **changes))
    stopped = tiny_run_settings(tmp_path / "stopped", small_shards, **changes, checkpoint_every=1)
    assert trained(stopped.model_copy(update={"max_steps": 2}))[2] != digest
    assert trained(stopped)[2] == digest
    for gan in stopped.band_plan().gans:
        assert ("loss" in events.records[-1].stages[gan.name]) == (gan.kind == "flow")
    images = synthesiser_of(find_checkpoint(stopped.run)).sample(0, 2).images
    assert images.shape == (2, 3, 16, 16)
    assert images.isfinite().all()
