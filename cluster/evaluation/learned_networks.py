"""Networks that have learnt what the real images of an evaluation show: from the cache, or taught now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cluster.data.quarantine import images_of
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shards import ShardSet
from cluster.evaluation.feature_cache import FeatureCache, feature_cache
from cluster.run.data_source import sound_batch
from freqgan.metrics.feature_network import LearnedFeatures, reduced
from freqgan.metrics.feature_recipe import RECIPES, FeatureRecipe
from freqgan.metrics.feature_training import learn_features
from freqgan.model.clips import one_frame_each

READ = 500
MIXED_SHARDS = 16
MOST_IMAGES = 40_000
"""More images make a network better that learns for longer, not one that learns for a minute."""

_recent: dict[tuple[str, FeatureRecipe], LearnedFeatures] = {}
"""Networks of the data set measured last: storage may be unable to keep them."""


def learned_networks(
    index: ShardSet,
    policy: ImagePolicy,
    note: Callable[[str], None],
    recipes: Sequence[FeatureRecipe] = RECIPES,
) -> list[LearnedFeatures]:
    """Return a network for each of ``recipes`` that knows the images of ``index``, fitted by ``policy``.

    Those that are not in the cache are taught on up to 40,000 images, and put there. ``note`` is told what takes time,
    what was damaged, and which networks are weak.
    """
    cache = feature_cache(index, policy)
    networks = [_known(cache, recipe, note) for recipe in recipes]
    if None in networks:
        images, labels = _images(index, policy)
        networks = [
            network or _taught(cache, recipe, images, labels, note)
            for recipe, network in zip(recipes, networks, strict=True)
        ]
    if any(cache.data != data for data, _ in _recent):
        _recent.clear()
    known = [network for network in networks if network is not None]
    _recent.update({(cache.data, recipe): network for recipe, network in zip(recipes, known, strict=True)})
    return known


def _known(cache: FeatureCache, recipe: FeatureRecipe, note: Callable[[str], None]) -> LearnedFeatures | None:
    return _recent.get((cache.data, recipe)) or cache.load(recipe, note)


def _taught(
    cache: FeatureCache, recipe: FeatureRecipe, images: Tensor, labels: Tensor | None, note: Callable[[str], None]
) -> LearnedFeatures:
    note(f"teaching the network of {recipe.name} with {len(images):,} real images, once for these: it takes minutes")
    return cache.store(learn_features(images, labels, recipe, note), recipe, note)


def _images(index: ShardSet, policy: ImagePolicy) -> tuple[Tensor, Tensor | None]:
    """Return sound images, uint8 (N, C, s, s) of what networks see, and their labels (N,), None where they clash.

    They are the first ones of the order in which real images are compared; of clips one frame each.
    """
    images, labels = list[Tensor](), list[Tensor]()
    order = DataSettings(shuffle_shards=MIXED_SHARDS)
    with BatchReader(index, policy, 0, order, most_damaged=index.sample_count) as reader:
        count, first = index.sample_count, 0
        while first < min(MOST_IMAGES, count):
            batch, damaged = sound_batch(reader, first, min(READ, MOST_IMAGES - first, count - first))
            count -= len(images_of(damaged))
            stored = torch.from_numpy(np.ascontiguousarray(batch.images))
            images.append(reduced(one_frame_each(stored, policy.frames)))
            labels.append(torch.from_numpy(batch.targets))
            first += len(batch.images)
    ambiguous = index.ambiguous_label is not None
    pixels = torch.cat(images)[:count]  # in place of damaged ones the reader goes on with the next epoch
    return pixels, None if ambiguous else torch.cat(labels)[:count]
