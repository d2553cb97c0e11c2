"""Losses of flow experts on held-out images, one number for each, from a checkpoint of any of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings
from cluster.data.shard_index import build_index
from cluster.run.checkpoint import Checkpoint
from cluster.run.data_source import sound_batch
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from freqgan.model.chain import Chain
from freqgan.model.flow_expert import FlowExpert, build_velocity_pair
from freqgan.model.generators import AVERAGE
from freqgan.tensor_dicts import strip_prefix
from freqgan.training.validation import validation_loss


def validation_losses(checkpoint: Checkpoint, data: str, count: int) -> dict[str, float]:
    """Return the loss of every flow expert of ``checkpoint``, by its name, on up to ``count`` images of ``data``.

    Raises:
        InputError: the images have no labels, or others than the model knows.

    """
    settings = checkpoint.settings
    flows = [gan for gan in settings.band_plan().gans if gan.kind == "flow" and gan.name in checkpoint.stage_steps]
    if not flows:
        return {}
    images, labels = held_out_images(settings, data, count)
    chain, averages = Chain(settings, checkpoint.statistics(), torch.device("cpu")), checkpoint.averages()
    losses = {}
    for gan in flows:
        networks = build_velocity_pair(chain, gan)
        networks.load_state_dict(strip_prefix(AVERAGE, averages[gan.name]))
        losses[gan.name] = validation_loss(FlowExpert(chain, gan, networks), images, labels)
    return losses


def held_out_images(settings: RunSettings, data: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images (B, C, N, N) of ``data`` in an order of their own, cut at the centre, and labels (B,)."""
    index = build_index(data)
    policy = settings.ingest.image_policy(settings.image_size, settings.channels, settings.bit_depth)
    count = min(count, index.sample_count)
    with BatchReader(
        index, replace(policy, crop="center"), 0, DataSettings(), most_damaged=index.sample_count
    ) as ingest:
        batch, _ = sound_batch(ingest, 0, count)
    labels = torch.from_numpy(batch.labels)
    if settings.classes and not bool(((labels >= 0) & (labels < settings.classes)).all()):
        raise InputError(f"images of {data} have no labels, or others than the model's 0 to {settings.classes - 1}")
    return torch.from_numpy(np.array(batch.images, order="C")), labels
