"""Every system with every part of a target: two starts and islands give the bytes of one, and images follow targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.generation.targets import TargetParts, targets_for
from tests.support.companions import OWN_LOSS_KINDS, stage_values
from tests.support.free_runs import digests_together, free_settings, stage_digests, trained_apart
from tests.support.mixtures import FLOWS
from tests.support.models import FUSION
from tests.support.runs import tiny_run_settings, trained
from tests.support.shards import write_described_shards

CONDITIONING: dict[str, Any] = {
    "classes": 2,
    "conditioning": {
        "kinds": "class,features,embedding,caption",
        "embedding_length": 5,
        "caption_bytes": 16,
        "caption_width": 16,
        "caption_layers": 1,
        "features_length": 4,
        "drop": 0.25,
    },
}
SINGLE: dict[str, Any] = {"plan": {"bands": "none"}}
SYSTEMS: dict[str, dict[str, Any]] = {
    "bands": {"plan": {"bands": ["LL1", "HL1"]}},
    "flows": FLOWS,
    "single": SINGLE,
    "fusion": FUSION,
    **{kind: {**SINGLE, "image_size": 8, "image_stage": stage_values(kind)} for kind in OWN_LOSS_KINDS},
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_described_shards(tmp_path_factory.mktemp("described"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stop_changes_no_bytes_and_targets_are_seen(system: str, described: Path, tmp_path: Path) -> None:
    changes = {**CONDITIONING, **SYSTEMS[system], "max_steps": 3}
    _, _, whole = trained(tiny_run_settings(tmp_path / "whole", described, **changes))
    trained(tiny_run_settings(tmp_path / "run", described, **(changes | {"max_steps": 2, "checkpoint_every": 2})))
    settings = tiny_run_settings(tmp_path / "run", described, **changes)
    _, events, digest = trained(settings)
    assert (events.first_step, digest) == (2, whole)

    model = synthesiser_of(find_checkpoint(settings.run))
    captions = ["picture 3", "picture 3"]
    parts = TargetParts(torch.tensor([0, 1]), torch.full((2, 5), 3.0), torch.zeros(2, 4), captions)
    asked = targets_for(model, 0, 2, parts)
    assert asked is not None
    assert model.sample(0, 2, targets=asked).images.isfinite().all()
    averages = find_checkpoint(settings.run).averages()
    embedded = [name for tensors in averages.values() for name in tensors if "embed.caption.bytes" in name]
    assert embedded


def test_islands_have_the_same_bytes(described: Path, tmp_path: Path) -> None:
    small = {**CONDITIONING, "plan": {"bands": ["LL1", "HL1"]}, "max_steps": 3}
    apart = free_settings(tmp_path / "run", described, "flow experts", **small)
    expected = digests_together(apart, tmp_path / "together")
    for component in reversed(apart.by_component().values()):
        trained_apart(apart, *component.only)
    assert stage_digests(apart.run) == expected
