"""Networks of learned features in storage: beside the shards that they were taught on, or in the user's cache.

An entry is a JSON file that names a file of weights with its sha256. Files of weights have their digest in their name
and entries are written whole, so that processes that teach the same network at the same time cannot mix their files;
the entry that is written first stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cluster.data.settings import ImagePolicy
from cluster.data.shards import ShardSet
from cluster.storage.checksummed_files import FileRecord, read_verified, write_recorded
from cluster.storage.folder import Folder, split_object
from cluster.storage.user_cache import user_cache
from freqgan.errors import FreqganError, InputError
from freqgan.metrics.feature_network import FeatureNetwork, LearnedFeatures, Task
from freqgan.metrics.feature_recipe import VERSION, FeatureRecipe
from freqgan.metrics.feature_training import EMBEDDING
from freqgan.seeds import seeded
from freqgan.setting_group import SettingGroup

FOLDER = "learned-features"
UNUSABLE = (FreqganError, SafetensorError, ValidationError, ValueError, RuntimeError)
"""What an entry that is damaged raises when it is read."""

Note = Callable[[str], None]


class _Entry(SettingGroup):
    """The JSON file of a network."""

    recipe: FeatureRecipe
    channels: int
    task: Task
    answers: int
    accuracy: float
    chance: float
    weights: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class FeatureCache:
    """The networks that were taught on one data set.

    Attributes:
        data: a digest of its images and of how they are fitted.
        places: where entries may lie; the first that can be written to gets new ones.

    """

    data: str
    places: tuple[Folder, ...]

    def load(self, recipe: FeatureRecipe, note: Note) -> LearnedFeatures | None:
        """Return the network of ``recipe``, None where there is none; a damaged one is deleted, and noted."""
        for folder in self.places:
            name = self._entry(recipe)
            with suppress(FreqganError):  # storage that cannot be read has no entries
                if not folder.exists(name):
                    continue
                try:
                    return _read(folder, folder.read(name), recipe)
                except UNUSABLE as error:
                    note(f"{folder.url}/{name} cannot be used and is replaced: {error}")
                folder.delete(name)
        return None

    def store(self, learned: LearnedFeatures, recipe: FeatureRecipe, note: Note) -> LearnedFeatures:
        """Write a network to the first place that takes it; return it, or that of who was faster."""
        for folder in self.places:
            with suppress(FreqganError):  # it may be another's, or a disk for reading
                record = _write_weights(folder, self._key(recipe), learned)
                entry = _entry_text(learned, recipe, record)
                if write_new(folder, self._entry(recipe), entry):
                    note(f"the network of {learned.name} is kept in {folder.url}")
                    return learned
                return self.load(recipe, note) or learned
        note(f"the network of {learned.name} is not kept: no place to write to; it is taught again next time")
        return learned

    def _entry(self, recipe: FeatureRecipe) -> str:
        return f"{self._key(recipe)}.json"

    def _key(self, recipe: FeatureRecipe) -> str:
        text = json.dumps([self.data, VERSION, recipe.model_dump(mode="json")], sort_keys=True)
        return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def feature_cache(index: ShardSet, policy: ImagePolicy) -> FeatureCache:
    """Return the cache of networks that are taught on the shards of ``index``, with images fitted by ``policy``."""
    beside, _ = split_object(index.shards[0].url)
    return FeatureCache(data_digest(index, policy), (beside.child(FOLDER), user_cache(FOLDER)))


def data_digest(index: ShardSet, policy: ImagePolicy) -> str:
    """Return the sha256 of all that images depend on: names, sizes, digests, samples of the shards, and ``policy``.

    A copy of the shards elsewhere has the same. Where no index knows digests, their names and sizes have to do.
    """
    total = hashlib.sha256(json.dumps(asdict(policy), sort_keys=True).encode())
    for shard in index.shards:
        name = split_object(shard.url)[1]
        total.update(f"{name} {shard.size_bytes} {shard.sha256}\n".encode(errors="surrogateescape"))
        for sample in shard.samples:
            line = f"{sample.key} {sample.offset} {sample.size_bytes} {sample.label} {sample.crc32}\n"
            total.update(line.encode(errors="surrogateescape"))
    total.update(str(index.ambiguous_label).encode())
    return total.hexdigest()


def _read(folder: Folder, text: bytes, recipe: FeatureRecipe) -> LearnedFeatures:
    """Return the network of an entry; one of UNUSABLE where it is damaged."""
    entry = _Entry.model_validate_json(text)
    tensors = load_safetensors(read_verified(folder, FileRecord(entry.weights, entry.size_bytes, entry.sha256)))
    outputs = EMBEDDING if entry.task == "instance" else entry.answers
    with seeded("learned features"):  # it begins with random weights: these are drawn from nobody else's generator
        network = FeatureNetwork(entry.channels, recipe.width, outputs)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return LearnedFeatures(recipe.name, network, entry.task, entry.answers, entry.accuracy, entry.chance)


def _write_weights(folder: Folder, key: str, learned: LearnedFeatures) -> FileRecord:
    tensors = {name: tensor.contiguous() for name, tensor in learned.network.state_dict().items()}
    data = save_safetensors(tensors)
    return write_recorded(folder, f"{key}.{hashlib.sha256(data).hexdigest()[:12]}.safetensors", data)


def _entry_text(learned: LearnedFeatures, recipe: FeatureRecipe, weights: FileRecord) -> bytes:
    entry = _Entry(
        recipe=recipe,
        channels=learned.network.channels,
        task=learned.task,
        answers=learned.answers,
        accuracy=learned.accuracy,
        chance=learned.chance,
        weights=weights.name,
        size_bytes=weights.size_bytes,
        sha256=weights.sha256,
    )
    return entry.model_dump_json(indent=1).encode()


def write_new(folder: Folder, name: str, data: bytes) -> bool:
    """Write an entry of a cache if there is none; return whether that was so."""
    try:
        return folder.write_if(name, data, None) is not None
    except InputError:  # a store without conditions: of two that write at once the last stays, whole
        folder.write(name, data)
        return True
