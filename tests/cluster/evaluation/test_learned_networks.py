"""Networks of learned features are taught once for a data set, and kept where they cannot be mixed up."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from cluster.data.packing import pack
from cluster.data.settings import ImagePolicy
from cluster.data.shard_index import build_index
from cluster.evaluation import learned_networks as module
from cluster.evaluation.feature_cache import FOLDER, data_digest, feature_cache
from cluster.evaluation.learned_networks import learned_networks
from cluster.storage.folder import Folder
from freqgan.metrics.feature_network import LearnedFeatures
from freqgan.metrics.feature_recipe import FeatureRecipe
from freqgan.metrics.learned_features import weights_digest

POLICY = ImagePolicy(size=16)
RECIPES = (
    FeatureRecipe(name="learned", width=4, most_steps=4),
    FeatureRecipe(name="learned_holdout", width=8, most_steps=4),
)


@pytest.fixture(autouse=True)
def user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's cache of the test's own; nothing is remembered from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_recent", {})
    return tmp_path / "cache" / "freqgan" / FOLDER


@pytest.fixture
def shards(small_shards: Path, tmp_path: Path) -> Path:
    """A copy of the small shards that nothing has been taught on."""
    return Path(shutil.copytree(small_shards, tmp_path / "shards", ignore=shutil.ignore_patterns(FOLDER)))


def taught(data: Path | str, policy: ImagePolicy = POLICY) -> tuple[list[LearnedFeatures], list[str]]:
    """The networks of ``data`` as a process has them that knows none yet, and what was noted."""
    module._recent.clear()
    notes: list[str] = []
    return learned_networks(build_index(str(data)), policy, notes.append, RECIPES), notes


def digests(networks: list[LearnedFeatures]) -> list[str]:
    return [weights_digest(network) for network in networks]


def test_networks_are_taught_once_and_kept_beside_the_shards(folder: Folder, shards: Path, user_cache: Path) -> None:
    for path in shards.iterdir():
        folder.upload(path, path.name)
    first, notes = taught(folder.url)
    assert len([note for note in notes if "teaching the network of" in note and "96 real images" in note]) == 2
    assert f"the network of learned is kept in {folder.url}/{FOLDER}" in notes
    assert [network.name for network in first] == ["learned", "learned_holdout"]
    assert {(network.task, network.answers) for network in first} == {("label", 2)}

    drawn = torch.get_rng_state()
    again, notes = taught(folder.url)
    assert notes == []
    assert torch.equal(torch.get_rng_state(), drawn)  # whoever else draws is not disturbed
    assert digests(again) == digests(first)
    assert [(one.accuracy, one.chance) for one in again] == [(one.accuracy, one.chance) for one in first]
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.network.features(pixels), other.network.features(pixels))
    kept = folder.child(FOLDER).files()
    assert sorted(name.rpartition(".")[2] for name in kept) == ["json", "json", "safetensors", "safetensors"]
    assert not user_cache.exists()
    assert build_index(folder.url).sample_count == 96  # what lies beside shards is no shard


def test_a_copy_elsewhere_has_networks_of_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    first, _ = taught(shards)
    copied = shutil.copytree(shards, tmp_path / "copy")
    again, notes = taught(copied)
    assert notes == []
    shutil.rmtree(copied / FOLDER)
    anew, notes = taught(copied)
    assert notes
    assert digests(first) == digests(again) == digests(anew)


def test_other_images_and_other_fits_have_other_networks(shards: Path, tmp_path: Path, held_out: Path) -> None:
    index = build_index(str(shards))
    known = {data_digest(index, policy) for policy in (POLICY, ImagePolicy(size=8), ImagePolicy(size=16, channels=1))}
    known.add(data_digest(build_index(str(held_out)), POLICY))
    known.add(data_digest(build_index(f"{shards}/*0.tar"), POLICY))
    assert len(known) == 5
    first, _ = taught(shards)
    grey, notes = taught(shards, ImagePolicy(size=16, channels=1))
    assert notes
    assert grey[0].network.channels == 1
    assert taught(shards)[1] == taught(shards, ImagePolicy(size=16, channels=1))[1] == []
    assert digests(taught(shards)[0]) == digests(first)


@pytest.mark.parametrize("part", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_entry_is_taught_anew_and_told(shards: Path, part: str, damage: str) -> None:
    first, _ = taught(shards)
    (path,) = (shards / FOLDER).glob(f"learned-*.{part}")
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-20] if damage == "cut" else data[:60] + bytes([data[60] ^ 1]) + data[61:])
    again, notes = taught(shards)
    assert digests(again) == digests(first)
    told = [note for note in notes if "cannot be used and is replaced" in note]
    if (part, damage) == ("json", "gone"):
        assert told == []  # there was no entry
    else:
        assert len(told) == 1
        assert str(shards / FOLDER / "learned-") in told[0]
    assert len([note for note in notes if "teaching" in note]) == 1  # the other network is whole
    assert path.read_bytes() == data
    assert taught(shards)[1] == []


def test_an_entry_of_an_unknown_kind_is_taught_anew(shards: Path) -> None:
    taught(shards)
    (path,) = (shards / FOLDER).glob("learned-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": float("nan")}))
    assert "cannot be used and is replaced" in taught(shards)[1][0]


def test_where_nothing_can_be_written_beside_the_shards_it_is_the_users_cache(shards: Path, user_cache: Path) -> None:
    (shards / FOLDER).write_text("a file where the folder would be")
    first, notes = taught(shards)
    assert f"the network of learned is kept in {user_cache}" in notes
    again, notes = taught(shards)
    assert notes == []
    assert digests(again) == digests(first)


def test_where_nothing_can_be_written_at_all_networks_are_taught_all_the_same(shards: Path, user_cache: Path) -> None:
    (shards / FOLDER).write_text("a file where the folder would be")
    user_cache.parent.parent.write_text("a file where the cache would be")
    index, notes = build_index(str(shards)), list[str]()
    first = learned_networks(index, POLICY, notes.append, RECIPES)
    assert len([note for note in notes if "no place to write to" in note]) == 2
    notes.clear()
    assert learned_networks(index, POLICY, notes.append, RECIPES) == first  # this process remembers
    assert notes == []


def test_several_that_teach_at_once_end_with_one_network(shards: Path) -> None:
    index = build_index(str(shards))
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: learned_networks(index, POLICY, lambda _: None, RECIPES), range(3)))
    assert len({tuple(digests(networks)) for networks in results}) == 1
    assert digests(results[0]) == digests(taught(shards)[0])
    assert len(list((shards / FOLDER).glob("*.json"))) == len(list((shards / FOLDER).glob("*.safetensors"))) == 2


def test_who_was_slower_takes_the_network_of_who_was_faster(shards: Path) -> None:
    """On another kind of processor the same network comes out with other bytes."""
    cache = feature_cache(build_index(str(shards)), POLICY)
    first, _ = taught(shards)
    other = LearnedFeatures("learned", first[0].network.__class__(3, 4, 2).eval(), "label", 2, 0.5, 0.5)
    stays = cache.store(other, RECIPES[0], lambda _: None)
    assert weights_digest(stays) == weights_digest(first[0])
    assert digests(taught(shards)[0]) == digests(first)


def test_images_without_labels_and_damaged_ones(held_out: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(held_out, tmp_path / "held", ignore=shutil.ignore_patterns(FOLDER)))
    sample = build_index(str(target)).shards[0].samples[7]
    shard = Path(build_index(str(target)).shards[0].url)
    data = bytearray(shard.read_bytes())
    data[sample.offset + 40 : sample.offset + 60] = bytes(20)
    shard.write_bytes(data)
    networks, notes = taught(target)
    assert "129 real images" in notes[0]
    assert {network.task for network in networks} == {"instance"}
    taught(held_out)  # of another data set: what was taught is forgotten but for the files
    again, notes = taught(target)
    assert (digests(again), [note for note in notes if "network" in note]) == (digests(networks), [])


def test_labels_that_mean_different_things_are_not_learnt(shards: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number, name in enumerate(("cats", "dogs")):
        (pictures / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (16, 16), (i * 10, number * 200, 0)).save(pictures / name / f"{i}.png")
    pack(str(pictures), str(tmp_path / "others"))
    data = f"{tmp_path}/{{shards,others}}/*.tar"
    networks, _ = taught(data)
    assert {network.task for network in networks} == {"instance"}
    assert {network.task for network in taught(tmp_path / "others")[0]} == {"label"}


def test_more_images_than_are_needed_are_not_read(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 50)
    assert "50 real images" in taught(shards)[1][0]
