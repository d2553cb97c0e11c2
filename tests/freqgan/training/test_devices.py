"""Training and generation keep to the device they are given, as a GPU would insist on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.execution.inline import InlineExecutor
from cluster.run.data_source import measure_statistics, open_source
from cluster.run.settings import RunSettings
from cluster.stages import host
from freqgan.generation.synthesiser import Synthesiser
from freqgan.tensor_dicts import tensors_of
from tests.support.other_device import OTHER, other_device
from tests.support.runs import tiny_run_settings

SYSTEMS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "classes, approximate penalties, shifts": {
        "classes": 2, "loss": {"penalty": "noise"}, "augmentation": {"shift": 1},
    },
    "a ring, sent as float16": {"plan": {"cycles": 2}, "exchange": "float16"},
    "an ensemble, another wavelet": {"plan": {"low_gans": {1: 2}}, "transform": "dwt:db2"},
    "two levels, one network for the high bands, bfloat16": {
        "levels": 2, "plan": {"high_gans": {1: 1, 2: 1}}, "precision": "bfloat16",
    },
    "no bands": {"plan": {"bands": "none"}},
    "hinge": {"loss": {"kind": "hinge"}},
}  # fmt: skip
"""Each with several settings, that have nothing to do with each other."""


def executor_of(settings: RunSettings) -> InlineExecutor:
    source = open_source(settings)
    statistics = {key: tensor.numpy() for key, tensor in measure_statistics(source).tensors().items()}
    return InlineExecutor(settings, source, statistics, None)


LONG = (
    "as it comes", "an ensemble, another wavelet", "no bands", "hinge", "a ring, sent as float16",
)  # fmt: skip


@pytest.mark.parametrize("system", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in SYSTEMS])
def test_training_and_generation_keep_to_their_device(
    system: str, small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, **SYSTEMS[system])
    device = OTHER
    with other_device(monkeypatch) as seen:
        monkeypatch.setattr(host, "choose_device", lambda wanted: device)
        executor = executor_of(settings)
        for step in range(settings.feedback.lag + 2):  # with and without penalties, before and after the first feedback
            before = seen.reads
            executor.submit(step)
            executor.finish()
            if step:  # at the first one, what a stage could be set back to is kept
                assert seen.reads - before == len(executor.hosts), "each fetches its numbers once, and nothing else"
        states = {name: tensors_of(stage.stage.state_dict()) for name, stage in executor.hosts.items()}
        assert all(t.device == device for tensors in states.values() for t in tensors.values())
        executor.save(step + 1, "attempt")
        assert executor.saved(wait=True)
        executor.close()
        statistics = measure_statistics(open_source(settings))
        made = Synthesiser(settings, statistics, states, device).sample(0, 3)
        assert {made.images.device, made.frequency.device, made.conventional.device} == {device}


def test_two_devices_in_one_operator_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with other_device(monkeypatch) as seen:
        there = torch.ones(3, device=OTHER)
        with pytest.raises(RuntimeError, match="over two devices"):
            there + torch.ones(3)
        assert (there + torch.ones(())).device == OTHER  # a number may come from anywhere
        assert (there + torch.ones(3).to(OTHER)).cpu().tolist() == [1.0, 1.0, 1.0]
        assert float(there.sum()) == 1.0
        assert seen.reads == 2
