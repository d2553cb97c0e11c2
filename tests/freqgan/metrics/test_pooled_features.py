"""Features that are pixels: a small picture by areas, which knows where things are."""

from __future__ import annotations

import pytest
import torch

from freqgan.metrics.pooled_features import PIXELS_SIDE, RandomNetwork, SmallPicture
from freqgan.pixels import from_pixels


def noise(side: int, *, channels: int = 3, wide: bool = False) -> torch.Tensor:
    top = 65_536 if wide else 256
    pixels = torch.randint(top, (2, channels, side, side), generator=torch.Generator().manual_seed(0))
    return pixels.to(torch.uint16 if wide else torch.uint8)


@pytest.mark.parametrize(("channels", "wide"), [(3, False), (1, False), (1, True)])
def test_large_images_are_averaged_over_areas(channels: int, wide: bool) -> None:
    images = noise(2 * PIXELS_SIDE, channels=channels, wide=wide)
    blocks = from_pixels(images).double().unflatten(3, (PIXELS_SIDE, 2)).unflatten(2, (PIXELS_SIDE, 2))
    features = SmallPicture().pooled(images)
    assert features.shape == (2, channels * PIXELS_SIDE**2)
    assert torch.allclose(features.double(), blocks.mean((3, 5)).flatten(1), atol=1e-6)


def test_small_images_stay_as_they_are() -> None:
    images = noise(8)
    assert torch.equal(SmallPicture().pooled(images), from_pixels(images).flatten(1))


def test_a_mirrored_image_differs_in_pixels_more_than_in_random_convolutions() -> None:
    ramp = torch.linspace(0, 255, 32).to(torch.uint8).expand(1, 3, 32, 32)
    differences = []
    for network in (SmallPicture(), RandomNetwork()):
        one, other = network.pooled(ramp), network.pooled(ramp.flip(3))
        differences.append(float((one - other).norm() / one.norm()))
    assert differences[0] > 5 * differences[1], differences
