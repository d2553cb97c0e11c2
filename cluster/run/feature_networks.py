"""The networks that features of images come from, and the features of given images as a model is shown them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from cluster.run.settings import RunSettings
from cluster.run.vgg_file import load_vgg19
from freqgan.errors import InputError
from freqgan.metrics.pooled_features import PooledNetwork, RandomNetwork, SmallPicture, VggNetwork
from freqgan.model.conditioning_settings import PIXELS
from freqgan.model.feature_map import FeatureMap
from freqgan.pixels import to_pixels

READ = 250
"""Images that go through the network at a time: with other numbers the last bits of their features may differ."""

_networks: dict[str, PooledNetwork] = {}
"""The one of this process that was read last: its file has half a gigabyte."""

Note = Callable[[str], None]


def feature_network(weights: str, note: Note = lambda text: None) -> PooledNetwork:
    """Return what features come from: VGG19 with the ``weights`` of a file, a network with random ones, or pixels.

    ``note`` is told which file that is.

    Raises:
        InputError: weights that cannot be read.

    """
    if not weights:
        return RandomNetwork()
    if weights == PIXELS:
        return SmallPicture()
    if weights not in _networks:
        _networks.clear()
        try:
            _networks[weights] = VggNetwork(load_vgg19(weights, note))
        except InputError as error:
            raise InputError(f"conditioning.network: {error}") from error
    return _networks[weights]


def features_of(images: Tensor, settings: RunSettings, mapping: FeatureMap | None) -> Tensor:
    """Return the features (B, d) of stored images (B, C, N, N), uint8 or uint16, as a model is shown them.

    Args:
        images: of the model's size.
        settings: of the model.
        mapping: of its statistics.

    Raises:
        InputError: the model has no map of features, or its network cannot be read.

    """
    if mapping is None:
        raise InputError("the model was trained without conditioning=features: it has no features of images")
    network = feature_network(settings.conditioning.network)
    return mapping(torch.cat([network.pooled(chunk) for chunk in torch.split(images, READ)]))


def features_like(image: Tensor, checkpoint: Checkpoint) -> Tensor:
    """Return the features (1, d) of an example (1, C, N, N) in [-1, 1], as the model is shown them.

    Raises:
        InputError: the model has no features of images, or their network cannot be read.

    """
    settings = checkpoint.settings
    return features_of(to_pixels(image, settings.bit_depth), settings, checkpoint.statistics().feature_map)


def check_shows_features(settings: RunSettings) -> None:
    """Raise InputError where a model of ``settings`` is not shown features, so that no image can be its example."""
    if not settings.target_layout.features:
        raise InputError(
            "--like: the model was trained without conditioning=features; leave --like out, or train with "
            "conditioning=features"
        )
