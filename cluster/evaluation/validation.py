"""Losses of flow experts on held-out images, one number for each, from a checkpoint of any of them."""

from __future__ import annotations

import torch
from torch import Tensor

from cluster.data.shard_index import build_index
from cluster.evaluation.held_out import images_with_targets
from cluster.run.checkpoint import Checkpoint
from cluster.run.settings import RunSettings
from freqgan.model.chain import Chain
from freqgan.model.feature_map import FeatureMap
from freqgan.model.flow_expert import FlowExpert, build_velocity_pair
from freqgan.model.generators import AVERAGE
from freqgan.tensor_dicts import strip_prefix
from freqgan.training.validation import validation_loss


def validation_losses(checkpoint: Checkpoint, data: str, count: int) -> dict[str, float]:
    """Return the loss of every flow expert of ``checkpoint``, by its name, on up to ``count`` images of ``data``.

    Raises:
        InputError: the images have no targets, or others than the model knows.

    """
    settings = checkpoint.settings
    flows = [gan for gan in settings.band_plan().gans if gan.kind == "flow" and gan.name in checkpoint.stage_steps]
    if not flows:
        return {}
    statistics = checkpoint.statistics()
    images, targets = held_out_images(settings, data, count, statistics.feature_map)
    chain, averages = Chain(settings, statistics, torch.device("cpu")), checkpoint.averages()
    targets, losses = chain.normalised_targets(targets), {}
    for gan in flows:
        networks = build_velocity_pair(chain, gan)
        networks.load_state_dict(strip_prefix(AVERAGE, averages[gan.name]))
        losses[gan.name] = validation_loss(FlowExpert(chain, gan, networks), images, targets)
    return losses


def held_out_images(settings: RunSettings, data: str, count: int, mapping: FeatureMap | None) -> tuple[Tensor, Tensor]:
    """Return the first images (B, C, N, N) of ``data`` in an order of their own, cut at the centre, and targets."""
    index = build_index(data)
    return images_with_targets(settings, index, data, min(count, index.sample_count), mapping=mapping)
