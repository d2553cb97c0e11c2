"""Snapshots of stages on local disks: what is kept, what is given back, what is said when one is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.run.data_source import measure_statistics, open_source
from cluster.run.layout import rollback_path
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.replicas import StageReplica
from cluster.stages.snapshots import SnapshotLostError, delete_snapshots, read_snapshot, snapshot_folder, write_snapshot
from cluster.storage.checksummed_files import FileRecord
from freqgan.tensor_dicts import tensors_of
from tests.support.runs import tiny_run_settings


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_last_ones_written_are_kept_whatever_their_step() -> None:
    """A run that was killed at step 900 and begins again at 500 must not lose its new snapshots to the old."""
    for step in (880, 890, 510, 520):
        path = write_snapshot("run", "LL1", step, {"w": torch.full((2,), float(step))}, {"step": step}, kept=2)
    write_snapshot("run", "LL2", 1, {"w": torch.zeros(1)}, {"step": 1}, kept=2)
    names = sorted(found.name for found in snapshot_folder("run").iterdir())
    assert names == ["LL1-000000510.safetensors", "LL1-000000520.safetensors", "LL2-000000001.safetensors"]
    tensors, scalars = read_snapshot(path)
    assert (tensors["w"].tolist(), scalars) == ([520.0, 520.0], {"step": 520})
    assert snapshot_folder("run").stat().st_mode & 0o077 == 0
    delete_snapshots("run")
    assert not snapshot_folder("run").exists()


def test_one_that_is_gone_or_damaged_says_so(tmp_path: Path) -> None:
    path = write_snapshot("run", "LL1", 1, {"w": torch.zeros(9)}, {"step": 1}, kept=2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SnapshotLostError, match=r"LL1-000000001\.safetensors cannot be read"):
        read_snapshot(path)
    path.unlink()
    with pytest.raises(SnapshotLostError, match="cannot be read"):
        read_snapshot(path)


def test_a_stage_goes_on_from_its_snapshot_as_if_nothing_had_happened(small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, feedback={"weight": 0.0})
    source = open_source(settings)
    statistics = {name: tensor.numpy() for name, tensor in measure_statistics(source).tensors().items()}
    chain = build_chain(settings, statistics)
    first, second = (build_host(settings, StageReplica("LL1", 0, 1), chain) for _ in range(2))
    batch = source.ingest().batch(0, settings.batch)
    images, labels = tensor_of(batch.images), tensor_of(batch.targets)
    for step in range(3):
        if step == 2:
            second.restore(first.snapshot(2))
        first.step(step, images, labels, {})
    second.step(2, images, labels, {})
    assert second.done == first.done == 3
    theirs = tensors_of(second.stage.state_dict())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in tensors_of(first.stage.state_dict()).items())


def test_what_was_packed_and_may_be_lost_is_packed_again_after_a_stage_went_back(
    small_shards: Path, tmp_path: Path
) -> None:
    """A state to go back to is named again where it was written; whether it was, a stage that goes back cannot know."""
    settings = tiny_run_settings(tmp_path / "run", small_shards, feedback={"weight": 0.0})
    statistics = {k: x.numpy() for k, x in measure_statistics(open_source(settings)).tensors().items()}
    host = build_host(settings, StageReplica("LL1", 0, 1), build_chain(settings, statistics))
    name, snapshot = rollback_path("LL1", 0, "attempt"), host.snapshot(0)
    first = host.packed(0, "attempt")[name]
    assert isinstance(first, bytes)
    assert isinstance(host.packed(0, "attempt")[name], FileRecord)
    host.restore(snapshot)
    assert host.packed(0, "attempt")[name] == first
    host.restore(snapshot)
    records = host.save(0, "attempt")
    host.load(f"{settings.run}/checkpoints", records, 0)
    assert host.packed(0, "another")[name] in records
