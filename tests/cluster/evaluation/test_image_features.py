"""Features of all images of a data set are computed once, kept beside it, and the same for whoever computes them."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cluster.data.sampler import BlockShuffle
from cluster.data.shard_index import build_index, index_shards
from cluster.data.targets import FeatureTable
from cluster.evaluation.held_out import images_with_targets
from cluster.evaluation.image_features import FOLDER, image_features
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import DataSource, measure_statistics, open_source
from cluster.run.feature_networks import features_of
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder
from freqgan.errors import InputError, RunError
from freqgan.model.feature_map import FeatureMap
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR
from tests.support.shards import described_members, upload, write_described_shards, write_tar
from tests.support.vgg import random_weights

SHOWN: dict[str, Any] = {"conditioning": {"kinds": "features", "features_length": 6, "neighbours": 3}}


@pytest.fixture(autouse=True)
def user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "freqgan" / FOLDER


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_described_shards(tmp_path / "data")


def settings_of(data: Path | str, **conditioning: Any) -> RunSettings:
    return tiny_run_settings("unused", data, conditioning=SHOWN["conditioning"] | conditioning)


def table_of(settings: RunSettings, notes: list[str] | None = None) -> FeatureTable:
    notes = [] if notes is None else notes
    return image_features(settings, build_index(settings.data), notes.append)


def same(one: FeatureTable, two: FeatureTable) -> bool:
    arrays = [(one.values, two.values), (one.neighbours, two.neighbours)]
    arrays += [(one.mapping[name], two.mapping[name]) for name in ("mean", "axes", "knots", "quantiles")]
    return all(np.array_equal(a, b) for a, b in arrays)


def test_features_are_kept_beside_the_shards_and_found_again(data: Path) -> None:
    notes: list[str] = []
    table = table_of(settings_of(data), notes)
    assert (table.values.shape, table.neighbours.shape, table.noise) == ((48, 6), (48, 3), 0.1)
    assert (table.neighbours[:, 0] == np.arange(48)).all()
    assert notes[0].startswith("features come from a network with random weights")
    assert f"the features of the images are kept in {data}/{FOLDER}" in notes
    later: list[str] = []
    assert same(table_of(settings_of(data), later), table)
    assert later == []
    shutil.copytree(data, copy := data.parent / "copy")
    assert same(table_of(settings_of(copy), later), table)
    assert later == []


@pytest.mark.parametrize("changes", [{"features_length": 5}, {"neighbours": 2}])
def test_other_features_have_an_entry_of_their_own(data: Path, changes: dict[str, Any]) -> None:
    table_of(settings_of(data))
    table = table_of(settings_of(data, **changes))
    assert table.values.shape[1] == changes.get("features_length", 6)
    assert table.neighbours.shape[1] == changes.get("neighbours", 3)
    assert len(list((data / FOLDER).glob("*.json"))) == 2


def test_damaged_entries_are_computed_again(data: Path) -> None:
    table = table_of(settings_of(data))
    (file,) = (data / FOLDER).glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    notes: list[str] = []
    assert same(table_of(settings_of(data), notes), table)
    assert "cannot be used and is replaced" in notes[0]
    (entry,) = (data / FOLDER).glob("*.json")
    entry.write_text("{")
    assert same(table_of(settings_of(data)), table)


def test_shards_that_cannot_be_written_to_have_them_in_the_users_cache(
    data: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Folder.write

    def refuse(folder: Folder, name: str, content: bytes) -> None:
        if folder.url.startswith(str(data)):
            raise RunError("a disk for reading")
        write(folder, name, content)

    monkeypatch.setattr(Folder, "write", refuse)  # root may write to every folder
    table = table_of(settings_of(data))
    assert list(user_cache.glob("*.json"))
    assert same(table_of(settings_of(data)), table)


def test_features_of_a_bucket_are_kept_in_it(data: Path, s3_server: str) -> None:
    url = upload(data)
    notes: list[str] = []
    table = table_of(settings_of(url), notes)
    assert f"the features of the images are kept in {url}/{FOLDER}" in notes
    assert same(table, table_of(settings_of(data)))


def test_who_is_first_wins(data: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(table_of, [settings_of(data)] * 2)
    assert same(one, two)
    assert len(list((data / FOLDER).glob("*.json"))) == 1


def test_damaged_images_have_no_features_and_are_nobodys_neighbours(data: Path) -> None:
    sound = table_of(settings_of(data))
    shutil.rmtree(data / FOLDER)
    index = build_index(str(data))
    sample = index.shards[1].samples[4]
    content = bytearray((data / "1.tar").read_bytes())
    content[sample.offset + 40] ^= 1
    (data / "1.tar").write_bytes(content)
    table = table_of(settings_of(data))
    assert (table.values[20] == 0).all()
    others = np.delete(np.arange(48), 20)
    assert not (table.neighbours[others] == 20).any()
    assert np.abs(table.values[others] - sound.values[others]).max() < 1.5  # ranks of one image less
    assert table.values[others].std() > 0.5


def test_images_given_later_have_the_features_of_those_in_the_data(data: Path) -> None:
    settings = settings_of(data)
    table = table_of(settings)
    mapping = FeatureMap.from_tensors({name: torch.from_numpy(x) for name, x in table.mapping.items()})
    with DataSource(settings, build_index(str(data))).ingest() as reader:
        batch = reader.batch(0, 48)
    order = BlockShuffle([16] * 3, settings.seed, settings.ingest.shuffle, settings.ingest.shuffle_shards)
    places = [order.locate(position) for position in range(48)]
    features = features_of(torch.from_numpy(np.ascontiguousarray(batch.images)), settings, mapping)
    numbers = [16 * shard + sample for shard, sample in places]
    assert np.allclose(features.numpy(), table.values[numbers], atol=1e-4)
    with pytest.raises(InputError, match="without conditioning=features"):
        features_of(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), settings, None)


def test_a_model_that_goes_on_keeps_its_map(data: Path, tmp_path: Path) -> None:
    table = table_of(settings_of(data))
    mapping = FeatureMap.from_tensors({name: torch.from_numpy(x) for name, x in table.mapping.items()})
    others = tmp_path / "others"
    write_tar(others / "0.tar", described_members(100, 24))
    index_shards(str(others))
    index = build_index(str(others))
    notes: list[str] = []
    own = image_features(settings_of(others), index, notes.append)
    kept = image_features(settings_of(others), index, notes.append, mapping=mapping)
    assert not np.array_equal(own.mapping["axes"], table.mapping["axes"])
    assert np.array_equal(kept.mapping["axes"], table.mapping["axes"])
    again = image_features(settings_of(others), index, notes.append, mapping=mapping)
    assert same(again, kept)
    assert sum("kept in" in note for note in notes) == 2
    assert same(image_features(settings_of(data), build_index(str(data)), notes.append, mapping=mapping), table)


def test_statistics_hold_the_features_and_their_map(data: Path) -> None:
    settings = settings_of(data)
    source = open_source(settings)
    table = image_features(settings, source.index, print)
    statistics = measure_statistics(DataSource(settings, source.index, None, table))
    assert statistics.targets is not None
    assert statistics.feature_map is not None
    assert sorted(map(tuple, statistics.targets[:, :-1].tolist())) == sorted(map(tuple, table.values.tolist()))
    restored = type(statistics).from_tensors(statistics.tensors())
    assert restored.feature_map is not None
    assert torch.equal(restored.feature_map.axes, statistics.feature_map.axes)


def test_a_resumed_run_shows_the_same_features(data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**PAIR, **SHOWN}
    digest = trained(tiny_run_settings(tmp_path / "one", data, **changes))[2]
    shutil.rmtree(data / FOLDER)
    trained(tiny_run_settings(tmp_path / "two", data, **changes, max_steps=4))
    shutil.rmtree(data / FOLDER)
    assert trained(tiny_run_settings(tmp_path / "two", data, **changes))[2] == digest
    checkpoint = find_checkpoint(str(tmp_path / "two"))
    statistics = checkpoint.statistics()
    index = build_index(str(data))
    _, targets = images_with_targets(
        checkpoint.settings, index, str(data), 48, mapping=statistics.feature_map, trained=True
    )
    assert statistics.targets is not None
    assert torch.allclose(targets, statistics.targets, atol=1e-4)


def test_a_network_that_cannot_be_read(data: Path) -> None:
    with pytest.raises(InputError, match=r"conditioning\.network: .*none\.pth"):
        table_of(settings_of(data, network="none.pth"))


def test_features_that_are_pixels(data: Path) -> None:
    notes = list[str]()
    settings = tiny_run_settings(
        "unused", data, conditioning=SHOWN["conditioning"] | {"network": "pixels"}, augmentation={"flip": False}
    )
    table = table_of(settings, notes)
    assert table.mapping["mean"].shape == (3 * 16 * 16,)
    assert not any("random" in note for note in notes)
    assert not np.array_equal(table.values, table_of(settings_of(data)).values)


def test_features_of_vgg19(tmp_path: Path) -> None:
    save_file(random_weights(), path := tmp_path / "vgg.safetensors")
    data = write_described_shards(tmp_path / "few", shards=1, count=5)
    changes, notes = {"features_length": 3, "neighbours": 2}, list[str]()
    plain = table_of(settings_of(data, **changes))
    table = table_of(settings_of(data, **changes, network=str(path)), notes)
    assert notes[0].startswith(f"{path} is no file that is known (sha256 ")
    assert not any("random" in note for note in notes)
    assert table.mapping["mean"].shape == (2944,)
    assert not np.array_equal(table.values, plain.values)
    assert len(list((data / FOLDER).glob("*.json"))) == 2
