"""Companions keep to the device that they are given, and fetch the numbers of a step once."""

from __future__ import annotations

import pytest

from freqgan.training.companion_stage import build_image_stage
from tests.support.companions import ADVERSARIAL_KINDS, LINEAR, OWN_LOSS_KINDS, companion_settings, stage_step
from tests.support.models import chain_of
from tests.support.other_device import OTHER, other_device

CASES = [(kind, bands) for kind in (*ADVERSARIAL_KINDS, *OWN_LOSS_KINDS, LINEAR) for bands in ("all", "none")]
SHORT = [("diffusion", "all"), ("flow", "none"), ("autoregressive", "none")]


@pytest.mark.parametrize(
    ("kind", "bands"), [pytest.param(*case, marks=[pytest.mark.long] * (case not in SHORT)) for case in CASES]
)
def test_companions_keep_to_their_device(kind: str, bands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = companion_settings(kind, classes=2, plan={"bands": bands})
    with other_device(monkeypatch) as seen:
        stage = build_image_stage(chain_of(settings, OTHER))
        for step in range(3):  # the pool is made in the first, and again in the third
            before = seen.reads
            stage_step(stage, step)
            if step:
                assert seen.reads - before == 1
