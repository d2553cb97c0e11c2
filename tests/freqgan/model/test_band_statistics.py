"""Band statistics against numpy in float64, their inverse, their storage and their refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqgan.bands import Band, SubImages
from freqgan.errors import InputError
from freqgan.model.band_statistics import STD_FLOOR, BandMoments, BandStatistics

LL, HL = Band(1, "LL"), Band(1, "HL")


def batches() -> list[SubImages]:
    """Three batches of unequal size; the channels differ in mean and scale."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.1, 30.0])[:, None, None]
    return [
        {band: torch.randn(size, 3, 4, 6, generator=generator) * scale + 2 * scale for band in (LL, HL)}
        for size in (1, 5, 2)
    ]


def measured(parts: list[SubImages]) -> BandStatistics:
    moments = BandMoments()
    for part in parts:
        moments.add(part)
    return moments.finish()


def test_moments_are_numpys_over_all_batches() -> None:
    parts = batches()
    statistics = measured(parts)
    for band in (LL, HL):
        values = np.concatenate([part[band].double().numpy() for part in parts])
        np.testing.assert_allclose(statistics.means[band].numpy(), values.mean(axis=(0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(statistics.stds[band].numpy(), values.std(axis=(0, 2, 3)), rtol=1e-6)
        assert statistics.means[band].dtype == statistics.stds[band].dtype == torch.float32


def test_a_far_mean_does_not_drown_the_variance() -> None:
    """In float32 the sum of squares would lose a spread of 1e-3 about 100 altogether."""
    values = torch.tensor([99.999, 100.001], dtype=torch.float64).repeat(500).reshape(10, 1, 10, 10)
    assert measured([{LL: values}]).stds[LL].item() == pytest.approx(1e-3, rel=1e-4)


def test_normalised_bands_have_mean_0_and_std_1_and_come_back() -> None:
    parts = batches()
    statistics = measured(parts)
    normalised = [statistics.normalise_all(part) for part in parts]
    whole = torch.cat([part[HL] for part in normalised]).double()
    torch.testing.assert_close(whole.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.std(dim=(0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    for part, back in zip(parts, map(statistics.denormalise_all, normalised), strict=True):
        torch.testing.assert_close(back, part)


def test_half_precision_is_normalised_in_float32() -> None:
    statistics = measured(batches())
    assert statistics.normalise(LL, torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_a_constant_band_is_floored_and_stays_near_zero(value: float) -> None:
    band = torch.full((5, 1, 7, 7), value)  # sizes at which rounding makes the variance of 0.1 negative
    statistics = measured([{HL: band}])
    assert statistics.stds[HL].item() == pytest.approx(STD_FLOOR)
    assert float(statistics.normalise(HL, band).abs().max()) < 0.1


def test_tensors_round_trip() -> None:
    statistics = measured(batches())
    stored = statistics.tensors()
    assert sorted(stored) == ["HL1.mean", "HL1.std", "LL1.mean", "LL1.std"]
    restored = BandStatistics.from_tensors(stored)
    assert restored.tensors().keys() == stored.keys()
    assert all(torch.equal(restored.tensors()[name], tensor) for name, tensor in stored.items())


def test_to_another_device() -> None:
    moved = measured(batches()).to("meta")
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_band_and_channel(bad: float) -> None:
    band = torch.zeros(2, 3, 4, 4)
    band[1, 2, 0, 0] = bad
    with pytest.raises(InputError, match=r"band HL1, channel 2.*not finite"):
        measured([{LL: torch.zeros(2, 3, 4, 4), HL: band}])


@pytest.mark.parametrize("parts", [[], [{LL: torch.zeros(0, 3, 4, 4)}]])
def test_no_images_are_refused(parts: list[SubImages]) -> None:
    with pytest.raises(InputError, match="at least one image"):
        measured(parts)


def test_an_unknown_band_and_other_channels_are_refused() -> None:
    statistics = measured(batches())
    with pytest.raises(InputError, match=r"HH2.*LL1, HL1"):
        statistics.normalise(Band(2, "HH"), torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match=r"LL1 has 1 channels.*on 3"):
        statistics.denormalise(LL, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"HH1.mean": torch.zeros(3)}, "HH1 are incomplete"),
        ({"HL1.std": torch.ones(1)}, "HL1 are incomplete"),
        ({"HL1.std": torch.tensor([1.0, 0.0, 1.0])}, "HL1, channel 1"),
        ({"HL1.mean": torch.full((3,), float("nan"))}, "HL1, channel 0"),
        ({"HL1.variance": torch.ones(3)}, "HL1.variance"),
        ({"XY1.mean": torch.ones(3)}, "XY1"),
    ],
)
def test_damaged_statistics_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BandStatistics.from_tensors(measured(batches()).tensors() | change)
