"""Runs that begin with the weights of an older model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.training.warm_start import begin_from, shape_of
from tests.support.mixtures import FLOW_BELOW_GAN, FLOWS, TINY_FLOW
from tests.support.runs import tiny_run_settings, trained


def test_flow_experts_begin_with_the_weights_of_others(small_shards: Path, tmp_path: Path) -> None:
    older = tiny_run_settings(tmp_path / "older", small_shards, **FLOWS)
    trained(older)
    newer = older.model_copy(update={"run": str(tmp_path / "newer"), "max_steps": 2})
    assert shape_of(newer) == shape_of(older)
    begin_from(newer, open_source(newer), find_checkpoint(older.run))
    begun, ended = find_checkpoint(newer.run).averages(), find_checkpoint(older.run).averages()
    assert begun.keys() == ended.keys() == {"LL1", "HL-LH-HH1"}
    assert all(torch.equal(begun[stage][name], x) for stage in ended for name, x in ended[stage].items())
    result, events, _ = trained(newer)
    assert (events.first_step, result.step) == (0, 2)
    assert "begins with the weights of an older model" in events.notes[-1]


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({**FLOWS, "conditioning": {"kinds": "caption"}}, "conditioning"),
        ({**FLOWS, "conditioning": {"drop": 0.5, "embedding_length": 3}}, ""),
        ({**FLOWS, "experts": {"low": "flow"}}, "experts"),
        ({**FLOWS, "flow": {**TINY_FLOW, "guide_at": 0.1}}, "flow.guide_at"),
        ({**FLOWS, "flow": {**TINY_FLOW, "band_network": {"width": 12}}}, "flow.band_network"),
        ({**FLOWS, "flow": {**TINY_FLOW, "outputs": "samples"}, "image_stage": {}}, "image_stage.alpha"),
        ({**FLOWS, "band_generator": {"width": 12}}, ""),  # there is no GAN
        ({**FLOWS, "generation": {"evaluations": 2}}, ""),
    ],
)
def test_what_decides_the_shapes_of_networks(changes: dict[str, object], different: str) -> None:
    ours, theirs = (shape_of(tiny_run_settings("run", "data", **one)) for one in (FLOWS, changes))
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert (different in differing) if different else not differing


def test_sizes_of_kinds_that_there_are_decide() -> None:
    mixed = tiny_run_settings("run", "data", **FLOW_BELOW_GAN)
    wider = tiny_run_settings("run", "data", **FLOW_BELOW_GAN, band_generator={"width": 12})
    assert shape_of(mixed)["band_generator"] != shape_of(wider)["band_generator"]
