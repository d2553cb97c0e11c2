"""Features that are normal number by number, and neighbours among them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.metrics.pooled_features import RandomNetwork
from freqgan.model.feature_map import KNOTS, FeatureMap, nearest_rows


def skewed(count: int, numbers: int = 12, rank: int = 12) -> Tensor:
    """Numbers that depend on each other and are far from normal."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, rank, generator=rng).exp()
    return hidden @ torch.randn(rank, numbers, generator=rng) + 5


@pytest.mark.parametrize("count", [300, 5000])
def test_features_of_the_images_it_was_fitted_to_are_normal(count: int) -> None:
    numbers = skewed(count)
    features = FeatureMap.fitted(numbers, 5)(numbers)
    assert features.dtype == torch.float32
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    wanted = torch.special.ndtri(levels).float()
    inner = slice(count // 100, -(count // 100))  # beyond the last knots all are cut to these
    for column in features.sort(0).values.T:
        assert torch.allclose(column[inner], wanted[inner], atol=0.02)
    if count <= KNOTS:
        assert torch.allclose(features.sort(0).values.T, wanted.expand(5, -1), atol=1e-5)


def test_components_are_the_principal_ones() -> None:
    numbers = skewed(2000)
    mapping = FeatureMap.fitted(numbers, 4)
    components = ((numbers - mapping.mean) @ mapping.axes).double()
    assert torch.allclose(torch.cov(components.T), torch.eye(4, dtype=torch.float64), atol=1e-3)
    values = torch.linalg.eigvalsh(torch.cov(numbers.double().T)).flip(0)[:4]
    assert torch.allclose(mapping.axes.double().norm(dim=0), values.rsqrt(), rtol=1e-4)


def test_fewer_images_than_numbers_have_the_same_components() -> None:
    numbers = skewed(9, rank=6)
    wide = FeatureMap.fitted(numbers, 3)
    narrow = FeatureMap.fitted(torch.cat([numbers, numbers]), 3)  # by the products of numbers
    both = [mapping.axes / mapping.axes.norm(dim=0) for mapping in (wide, narrow)]
    assert torch.allclose(both[0], both[1], atol=1e-4)
    assert FeatureMap.fitted(numbers, 12)(numbers)[:, 8:].abs().max() < 1e-6


def test_images_of_later_are_between_those_of_before() -> None:
    numbers = skewed(3000)
    mapping = FeatureMap.fitted(numbers[:2000], 3)
    features = mapping(numbers[2000:])
    assert features.mean().abs() < 0.1
    assert (features.std(0) - 1).abs().max() < 0.1
    one = mapping(numbers[2500:2501])
    assert torch.equal(one[0], features[500])
    far = mapping(numbers[:1] * 1e6)
    assert bool(far.isfinite().all())
    assert far.abs().max() <= mapping.quantiles.max()


def test_constant_components_are_0() -> None:
    numbers = skewed(200, rank=2)
    features = FeatureMap.fitted(numbers, 5)(numbers)
    assert (features[:, :2].std(0) > 0.9).all()
    assert (features[:, 2:].abs() < 1e-6).all()


def test_numbers_that_are_not_finite_have_no_features() -> None:
    numbers = skewed(100)
    numbers[7] = torch.nan
    mapping = FeatureMap.fitted(numbers, 3)
    without = FeatureMap.fitted(torch.cat([numbers[:7], numbers[8:]]), 3)
    assert torch.equal(mapping.axes, without.axes)
    features = mapping(numbers)
    assert features[7].tolist() == [0, 0, 0]
    assert torch.equal(features[8], without(numbers)[8])


def test_a_stored_map_is_the_same() -> None:
    numbers = skewed(50)
    mapping = FeatureMap.fitted(numbers, 3)
    again = FeatureMap.from_tensors(mapping.tensors())
    assert torch.equal(again(numbers), mapping(numbers))
    for damaged in (
        {},
        {"mean": mapping.mean},
        mapping.tensors() | {"axes": mapping.axes[:, :2]},
        mapping.tensors() | {"knots": mapping.knots * torch.nan},
        mapping.tensors() | {"axes": torch.zeros(3)},
    ):
        with pytest.raises(InputError, match="no map of features: the file was damaged"):
            FeatureMap.from_tensors(damaged)


def test_what_cannot_be_fitted_or_mapped() -> None:
    with pytest.raises(InputError, match=r"features_length: 3 features cannot be had of 1 images"):
        FeatureMap.fitted(skewed(1), 3)
    with pytest.raises(InputError, match=r"features_length: 13 .* ask for at most 12"):
        FeatureMap.fitted(skewed(50), 13)
    with pytest.raises(InputError, match=r"do not fit a model that was trained with 12 numbers"):
        FeatureMap.fitted(skewed(50), 3)(torch.zeros(2, 11))


@pytest.mark.parametrize("rows", [7, 1000])
def test_neighbours_are_the_nearest(rows: int) -> None:
    features = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    near = nearest_rows(features, 4, torch.arange(60), rows)
    distances = torch.cdist(features.double(), features.double())
    assert near.dtype == torch.int32
    assert near.tolist() == distances.argsort(1)[:, :4].tolist()


def test_neighbours_come_from_the_pool_and_the_image_itself() -> None:
    features = torch.arange(10.0)[:, None]
    pool = torch.tensor([0, 9])
    assert nearest_rows(features, 2, pool).tolist()[3] == [3, 0]
    assert nearest_rows(features, 4, pool).tolist()[4] == [4, 0, 4, 0]  # the pool less one, and again
    assert nearest_rows(features, 2, pool).tolist()[9] == [9, 0]
    assert nearest_rows(features, 1, pool).tolist() == [[number] for number in range(10)]
    assert nearest_rows(features[:1], 3, torch.tensor([0])).tolist() == [[0, 0, 0]]


def test_the_random_network_is_always_the_same_and_sees_colour() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 96, 96), generator=rng, dtype=torch.uint8)
    numbers = RandomNetwork().pooled(images)
    assert numbers.shape == (3, 448)
    assert torch.allclose(RandomNetwork().pooled(images[1:2])[0], numbers[1], atol=1e-5)
    assert not torch.allclose(RandomNetwork().pooled(images.flip(1)), numbers, atol=1e-3)
    grey = images[:, :1]
    assert torch.equal(RandomNetwork().pooled(grey), RandomNetwork().pooled(grey.expand(-1, 3, -1, -1)))
    wide = grey.to(torch.int32).mul(257).to(torch.uint16)
    assert torch.allclose(RandomNetwork().pooled(wide), RandomNetwork().pooled(grey), atol=1e-5)
