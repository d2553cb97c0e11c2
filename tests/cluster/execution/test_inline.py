"""All stages in one process: what they share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.execution.inline import InlineExecutor
from cluster.run.data_source import measure_statistics, open_source
from freqgan.bands import SubImages
from freqgan.model.chain import Chain
from tests.support.runs import tiny_run_settings


def test_stages_share_one_analysis_of_a_batch_in_c_order(
    small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    source = open_source(settings)
    statistics = {name: tensor.numpy() for name, tensor in measure_statistics(source).tensors().items()}
    executor = InlineExecutor(settings, source, statistics, None)
    real, analysed = Chain.real, list[torch.Tensor]()

    def count(self: Chain, images: torch.Tensor) -> SubImages:
        analysed.append(images)
        return real(self, images)

    monkeypatch.setattr(Chain, "real", count)
    for step in range(3):
        executor.submit(step)
        assert set(executor.finish()) == {"LL1", "HL1", "LH1", "HH1", "image"}
        assert len(analysed) == step + 1
    assert all(images.shape == (8, 3, 16, 16) and images.is_contiguous() for images in analysed)
    executor.close()
