"""Images that a model was not trained on, with the targets that it is to be shown with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings
from cluster.data.shards import ShardSet
from cluster.data.targets import check_members
from cluster.run.data_source import sound_batch, target_reader
from cluster.run.feature_networks import features_of
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from freqgan.model.feature_map import FeatureMap


def images_with_targets(
    settings: RunSettings,
    index: ShardSet,
    data: str,
    count: int,
    *,
    mapping: FeatureMap | None = None,
    trained: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the first sound images (B, C, N, N) of ``index``, cut at the centre, and their targets, all shown.

    Targets are labels (B,) int64, or packed (B, K) float32.

    Args:
        settings: of the model.
        index: of the shards.
        data: what errors call them.
        count: how many images.
        mapping: from images to features, of a model that is shown such.
        trained: whether they come in the order of the training; else in one of their own.

    Raises:
        InputError: images without the targets that the model takes, or with others than it knows.

    """
    check_members(index, settings.target_layout, settings.conditioning)
    policy = settings.ingest.model_policy(settings)
    order, seed = (settings.ingest, settings.seed) if trained else (DataSettings(), 0)
    with BatchReader(
        index,
        replace(policy, crop="center"),
        seed,
        order,
        most_damaged=index.sample_count,
        targets=target_reader(settings, training=False),
    ) as reader:
        batch, _ = sound_batch(reader, 0, count)
    targets = torch.from_numpy(batch.targets)
    _check_labels(settings, targets, data)
    images = torch.from_numpy(np.array(batch.images, order="C"))
    return images, with_features_of(images, targets, settings, mapping)


def with_features_of(images: Tensor, targets: Tensor, settings: RunSettings, mapping: FeatureMap | None) -> Tensor:
    """Return ``targets`` (B, K) with the features of stored ``images`` (B, C, N, N), where the model is shown such."""
    columns = settings.target_layout.columns.get("features")
    if columns is None:
        return targets
    out = targets.clone()
    out[:, columns] = features_of(images, settings, mapping)
    return out


def _check_labels(settings: RunSettings, targets: Tensor, data: str) -> None:
    if not settings.classes:
        return
    layout = settings.target_layout
    labels = targets[:, layout.columns["label"]] if layout.packed else targets
    if not bool(((labels >= 0) & (labels < settings.classes)).all()):
        raise InputError(f"images of {data} have no labels, or others than the model's 0 to {settings.classes - 1}")
