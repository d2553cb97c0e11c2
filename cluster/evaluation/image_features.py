"""Features of all images of a data set, by a network whose weights do not change: computed once, and kept.

An entry of the cache is a JSON file that names a file of tensors with its sha256; it lies beside the shards, or in the
user's cache where these cannot be written to. Of several processes that compute the same, the first one's stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.data.quarantine import WHOLE_SHARD, DamageFoundError
from cluster.data.reader import BatchReader
from cluster.data.sampler import permutation
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shards import Shard, ShardSet
from cluster.data.targets import FeatureTable
from cluster.evaluation.feature_cache import UNUSABLE, data_digest, write_new
from cluster.run.feature_networks import READ, Note, feature_network
from cluster.run.settings import RunSettings
from cluster.storage.checksummed_files import FileRecord, read_verified, write_recorded
from cluster.storage.folder import Folder, split_object
from cluster.storage.user_cache import user_cache
from freqgan.errors import FreqganError, InputError
from freqgan.metrics.pooled_features import PooledNetwork, RandomNetwork
from freqgan.model.conditioning_settings import ConditioningSettings
from freqgan.model.feature_map import FeatureMap, nearest_rows

FOLDER = "image-features"
VERSION = 1
MAPPED = 4096
FITTED = 20_000
"""Images that a map is fitted to, at random, of a set that has more."""
POOL = 50_000
"""Images that may be neighbours, at random, of a set that has more: all pairs of a million would take hours."""
MAP = "map"

Numbers = NDArray[np.float32]
Pooling = Callable[["FeatureJob"], Iterator[Numbers]]
"""Returns what the network sees of the images of every shard, in order."""


@dataclass(frozen=True)
class FeatureJob:
    """What is needed to compute the features of images.

    Attributes:
        index: all shards.
        policy: how images are fitted, cut in the middle.
        network: weights, see :func:`cluster.run.feature_networks.feature_network`.

    """

    index: ShardSet
    policy: ImagePolicy
    network: str

    def of_shard(self, shard: Shard) -> FeatureJob:
        """Return the job of one shard alone."""
        return replace(self, index=ShardSet((shard,)))


def image_features(
    settings: RunSettings,
    index: ShardSet,
    note: Note,
    pooling: Pooling | None = None,
    mapping: FeatureMap | None = None,
) -> FeatureTable:
    """Return the features of all images of ``index``, from the cache or computed now.

    Args:
        settings: of the run.
        index: of the shards.
        note: is told what takes time, and where features are kept.
        pooling: runs the network; in this process where not given.
        mapping: of the model that goes on training; one that is fitted to these images where not given.

    Raises:
        InputError: too few images, or weights that cannot be read.

    """
    conditioning, policy = settings.conditioning, feature_policy(settings)
    network = feature_network(conditioning.network, note)
    places = (split_object(index.shards[0].url)[0].child(FOLDER), user_cache(FOLDER))
    key = _key(data_digest(index, policy), network, conditioning, settings.feature_neighbours)
    stored = _load(places, key, note)
    if stored is None or not _has_map(stored, mapping):
        key = key if mapping is None else f"{key}-{_digest(mapping.tensors())[:12]}"
        stored = _load(places, key, note) if mapping is not None else None
    if stored is None:
        if isinstance(network, RandomNetwork):
            note("features come from a network with random weights, which tells colours and textures, and no things")
        job = FeatureJob(index, policy, conditioning.network)
        stored = _computed(settings, job, note, pooling or pooled_here, mapping)
        stored = _store(places, key, stored, note)
    arrays = {name: tensor.numpy() for name, tensor in stored.items()}
    own = {name.removeprefix(f"{MAP}."): array for name, array in arrays.items() if name.startswith(f"{MAP}.")}
    return FeatureTable(arrays["values"], arrays["neighbours"], conditioning.features_noise, own)


def feature_policy(settings: RunSettings) -> ImagePolicy:
    """Return how images are fitted of which features are computed: as for training, and cut in the middle."""
    policy = settings.ingest.model_policy(settings)
    return replace(policy, crop="center")


# -- computing -------------------------------------------------------------------------------------


def pooled_here(job: FeatureJob) -> Iterator[Numbers]:
    """Yield what the network sees of the images of every shard (samples, n), computed in this process."""
    for shard in job.index.shards:
        yield pooled_shard(job.of_shard(shard))


def pooled_shard(job: FeatureJob) -> Numbers:
    """Return what the network sees of the images of ``job`` (samples, n), in their order; NaN for damaged ones.

    Where all are damaged, n is 0.
    """
    network, count = feature_network(job.network), job.index.sample_count
    numbers = np.empty((count, 0), np.float32)
    with BatchReader(job.index, job.policy, 0, DataSettings(shuffle=False), most_damaged=count) as reader:
        for first in range(0, count, READ):
            pixels, places = _sound_images(reader, first, min(READ, count - first))
            if not places:
                continue
            pooled = network.pooled(torch.from_numpy(pixels)).numpy()
            if not numbers.shape[1]:
                numbers = np.full((count, pooled.shape[1]), np.nan, np.float32)
            numbers[first + np.array(places)] = pooled
    return numbers


def _sound_images(reader: BatchReader, first: int, count: int) -> tuple[Pixels, list[int]]:
    """Return those images (B, C, N, N) of a range that can be read, and their places in it."""
    try:
        return np.ascontiguousarray(_read(reader, first, count)), list(range(count))
    except DamageFoundError:
        pass
    images, sound = [], []
    for place in range(count):
        with suppress(DamageFoundError):
            images.append(_read(reader, first + place, 1))
            sound.append(place)
    if not images:
        return np.empty((0, 1, 1, 1), np.uint8), sound
    return np.ascontiguousarray(np.concatenate(images)), sound


def _read(reader: BatchReader, first: int, count: int) -> Pixels:
    """Return images (B, C, N, N), whatever is wrong beside them in their shard."""
    try:
        return reader.batch(first, count).images
    except DamageFoundError as error:
        if any(one.sample_number != WHOLE_SHARD for one in error.found):
            raise
        reader.leave_out(error.found)  # which leaves out no image, but is not told of again
        return reader.batch(first, count).images


def _computed(
    settings: RunSettings, job: FeatureJob, note: Note, pooling: Pooling, mapping: FeatureMap | None
) -> dict[str, Tensor]:
    count = job.index.sample_count
    fitted = np.zeros(count, bool)
    fitted[permutation(count, "features", "fitted")[:FITTED]] = True
    numbers = torch.from_numpy(_joined(_told(pooling(job), count, note), job))
    if mapping is None:
        mapping = FeatureMap.fitted(numbers[torch.from_numpy(fitted)], settings.conditioning.features_length)
    values = torch.cat([mapping(chunk) for chunk in torch.split(numbers, MAPPED)])
    sound = torch.from_numpy(permutation(count, "features", "pool"))
    sound = sound[numbers.isfinite().all(1)[sound]][:POOL].sort().values
    neighbours = settings.feature_neighbours
    if neighbours > 1:
        note(f"looking for the {neighbours} nearest of {count:,} images")
    stored = {f"{MAP}.{name}": tensor for name, tensor in mapping.tensors().items()}
    return stored | {"values": values, "neighbours": nearest_rows(values, neighbours, sound)}


def _joined(shards: Iterable[Numbers], job: FeatureJob) -> Numbers:
    """Return the numbers of all images (N, n), NaN where a shard has none that can be read."""
    joined, first = np.empty((job.index.sample_count, 0), np.float32), 0
    for shard in shards:
        if not joined.shape[1]:
            joined = np.full((len(joined), shard.shape[1]), np.nan, np.float32)
        if shard.shape[1]:
            joined[first : first + len(shard)] = shard
        first += len(shard)
    if not joined.shape[1]:
        raise InputError(f"conditioning=features: no image of {job.index.shards[0].url} can be read")
    return joined


def _told(shards: Iterable[Numbers], count: int, note: Note) -> Iterator[Numbers]:
    done = 0
    note(f"computing features of {count:,} images, once for these")
    for shard in shards:
        tenths = 10 * done // count
        done += len(shard)
        if tenths < 10 * done // count < 10:
            note(f"features of {done:,} of {count:,} images are computed")
        yield shard


# -- keeping ---------------------------------------------------------------------------------------


def _key(data: str, network: PooledNetwork, conditioning: ConditioningSettings, neighbours: int) -> str:
    text = json.dumps([data, VERSION, network.identity, conditioning.features_length, neighbours])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save_safetensors({name: x.contiguous() for name, x in tensors.items()})).hexdigest()


def _has_map(stored: dict[str, Tensor], mapping: FeatureMap | None) -> bool:
    """Return whether features were made by ``mapping``, if one is given."""
    if mapping is None:
        return True
    return all(torch.equal(stored[f"{MAP}.{name}"], tensor) for name, tensor in mapping.tensors().items())


def _load(places: Iterable[Folder], key: str, note: Note) -> dict[str, Tensor] | None:
    """Return the tensors (...) of an entry, None where there is none; a damaged one is deleted, and noted."""
    name = f"{key}.json"
    for folder in places:
        with suppress(FreqganError):  # storage that cannot be read has no entries
            if not folder.exists(name):
                continue
            try:
                record = FileRecord(**json.loads(folder.read(name)))
                return load_safetensors(read_verified(folder, record))
            except (*UNUSABLE, TypeError) as error:
                note(f"{folder.url}/{name} cannot be used and is replaced: {error}")
            folder.delete(name)
    return None


def _store(places: Iterable[Folder], key: str, tensors: dict[str, Tensor], note: Note) -> dict[str, Tensor]:
    """Write an entry to the first place that takes it; return its tensors (...), or those of who was faster."""
    data = save_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    for folder in places:
        with suppress(FreqganError):  # it may be another's, or a disk for reading
            record = write_recorded(folder, f"{key}.{hashlib.sha256(data).hexdigest()[:12]}.safetensors", data)
            entry = {"name": record.name, "size_bytes": record.size_bytes, "sha256": record.sha256}
            if write_new(folder, f"{key}.json", json.dumps(entry).encode()):
                note(f"the features of the images are kept in {folder.url}")
                return tensors
            return _load([folder], key, note) or tensors
    note("the features of the images are not kept: no place to write to; they are computed again next time")
    return tensors
