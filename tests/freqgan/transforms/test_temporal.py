"""Clips as bands over time, against PyWavelets and against what moves and what does not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from freqgan.bands import Band, parse_band
from freqgan.errors import InputError
from freqgan.transforms import ClipTransform, parse_transform

DETAIL = {"da": "LH", "ad": "HL", "dd": "HH"}


def clips(frames: int, channels: int = 2, size: tuple[int, int] = (16, 24), seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(3, frames * channels, *size, generator=rng, dtype=torch.float64)


def energies(bands: dict[Band, Tensor]) -> dict[str, float]:
    """The share of the sum of squares by temporal band."""
    total = sum(float(x.square().sum()) for x in bands.values())
    sums: dict[str, float] = {}
    for band, x in bands.items():
        sums[band.time] = sums.get(band.time, 0.0) + float(x.square().sum()) / total
    return sums


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "bior2.2"])
@pytest.mark.parametrize(("frames", "levels"), [(8, 1), (8, 3), (12, 2), (16, 4), (6, 0)])
@pytest.mark.parametrize("still", ["dwt:haar", "dwt:db2", "dct", "fft:meyer", "radial:2,3"])
def test_synthesis_is_the_exact_inverse(still: str, frames: int, levels: int, wavelet: str) -> None:
    transform = ClipTransform(parse_transform(still, 2), frames, levels, wavelet)
    x = clips(frames)
    bands = transform.analyse(x)
    assert set(bands) == set(transform.bands())
    own = {band: bands[band] for band in transform.independent_bands()}
    torch.testing.assert_close(transform.synthesise(own, (16, 24)), x, atol=1e-10, rtol=0)
    torch.testing.assert_close(transform.synthesise(bands, (16, 24)), x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize(("frames", "levels"), [(16, 4), (8, 2)])
def test_equals_pywavelets_along_all_three_axes(frames: int, levels: int, wavelet: str) -> None:
    """One level in time and space is ``pywt.dwtn``; more levels in time are ``wavedec`` along it."""
    x = clips(frames)
    volume = x.view(3, frames, 2, 16, 24).numpy()
    one = ClipTransform(parse_transform("dwt:db2", 1), frames, 1, wavelet).analyse(x)
    theirs = pywt.dwtn(volume, (wavelet, "db2", "db2"), "periodization", axes=(1, 3, 4))
    for key, expected in theirs.items():
        time, orientation = ("tL", "tH1")[key[0] == "d"], DETAIL.get(key[1:], "LL")
        ours = one[Band(1, orientation, time)].view(3, frames // 2, 2, 8, 12)
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that many levels have coefficients that borders reach
        whole = pywt.wavedec(volume, wavelet, "periodization", levels, axis=1)
    transform = ClipTransform(parse_transform("dwt:haar", 2), frames, levels, wavelet)
    for time, expected in zip(transform.times, whole, strict=True):
        ours = transform.split_time(x)[time].view(expected.shape)
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_equals_wavedecn_where_space_and_time_are_halved_as_often() -> None:
    x = clips(8, channels=1)
    theirs = pywt.wavedecn(x.numpy(), "haar", "periodization", 1, axes=(1, 2, 3))
    bands = ClipTransform(parse_transform("dwt:haar", 1), 8, 1).analyse(x)
    np.testing.assert_allclose(bands[Band(1, "LL", "tL")].numpy(), theirs[0], atol=1e-12)
    for key, expected in theirs[1].items():
        time, orientation = ("tL", "tH1")[key[0] == "d"], DETAIL.get(key[1:], "LL")
        np.testing.assert_allclose(bands[Band(1, orientation, time)].numpy(), expected, atol=1e-12)


def test_stripes_that_move_by_themselves_alone_are_changes_alone() -> None:
    """Stripes two pixels wide that change places with every frame have no average at any pixel."""
    columns = torch.arange(24) // 2 % 2 * 2.0 - 1
    frames = torch.stack([columns * (1 if t % 2 == 0 else -1) for t in range(8)])
    clip = frames[None, :, None, :].expand(1, 8, 16, 24).double()
    shares = energies(ClipTransform(parse_transform("dwt:haar", 2), 8, 3).analyse(clip))
    assert shares["tH1"] == pytest.approx(1)
    assert shares["tL"] == pytest.approx(0)


def test_still_clips_have_no_changes() -> None:
    transform = ClipTransform(parse_transform("dwt:haar", 2), 8, 3)
    still = clips(1).repeat(1, 8, 1, 1)
    bands = transform.analyse(still)
    assert energies(bands)["tL"] == pytest.approx(1)
    averages = {band: x for band, x in bands.items() if band.time == "tL"}
    torch.testing.assert_close(transform.synthesise(averages, (16, 24)), still)
    low = bands[Band(2, "LL", "tL")] / transform.low_range(Band(2, "LL", "tL"))
    torch.testing.assert_close(low[:, :2].mean((2, 3)), still[:, :2].mean((2, 3)))  # in the range of pixels


def test_changes_that_are_not_given_count_as_zero_and_averages_are_needed() -> None:
    transform, x = ClipTransform(parse_transform("dwt:haar", 1), 4, 2), clips(4)
    bands = transform.analyse(x)
    slow = transform.synthesise({b: v for b, v in bands.items() if b.time != "tH1"}, (16, 24))
    pairs = x.view(3, 2, 2, 2, 16, 24).mean(2, keepdim=True).expand(-1, -1, 2, -1, -1, -1).reshape(x.shape)
    torch.testing.assert_close(slow, pairs)
    with pytest.raises(InputError, match="no band of tL given"):
        transform.synthesise({b: v for b, v in bands.items() if b.time != "tL"}, (16, 24))
    with pytest.raises(InputError, match="the temporal bands are tL, tH2, tH1"):
        transform.synthesise({Band(1, "LL"): x}, (16, 24))
    with pytest.raises(InputError, match=r"shape \(3, 6, 16, 24\) is not \(clips, 4 frames x channels"):
        transform.analyse(x[:, :6])


def test_one_clip_is_split_as_it_is_among_others() -> None:
    transform = ClipTransform(parse_transform("dwt:haar", 2), 8, 3, "db2")
    x = clips(8).float()
    for band, whole in transform.analyse(x).items():
        assert torch.equal(transform.analyse(x[1:2])[band][0], whole[1])


def test_orthonormal_wavelets_rotate_clips() -> None:
    still = parse_transform("dwt:haar", 2)
    assert ClipTransform(still, 8, 3, "db2").is_orthonormal((16, 24))
    assert not ClipTransform(still, 8, 3, "bior2.2").is_orthonormal((16, 24))
    assert not ClipTransform(parse_transform("dwt:bior2.2", 2), 8, 3).is_orthonormal((16, 24))


def test_gradients_flow_both_ways() -> None:
    transform = ClipTransform(parse_transform("dwt:haar", 1), 4, 2)
    x = clips(4, 1, (4, 4))[:1].requires_grad_()

    def there_and_back(clip: Tensor) -> Tensor:
        bands = transform.analyse(clip)
        return transform.synthesise({b: v * 2 for b, v in bands.items()}, (4, 4))

    assert torch.autograd.gradcheck(there_and_back, (x,))


@pytest.mark.parametrize(("frames", "levels"), [(6, 2), (5, 1), (0, 0)])
def test_frames_that_cannot_be_halved_are_refused(frames: int, levels: int) -> None:
    with pytest.raises(InputError, match=f"{frames} frames cannot be halved {levels} times"):
        ClipTransform(parse_transform("dwt:haar", 1), frames, levels)


@pytest.mark.parametrize("name", ["tL.LL2", "tH1.HL1", "tH3.RA2", "tH2.HLLH1"])
def test_names_of_bands_are_read_back(name: str) -> None:
    assert str(parse_band(name)) == name


@pytest.mark.parametrize("name", ["tH0.LL1", "tH.LL1", "LL1.tL", "tL.", "TL.LL1", "tL.tL.LL1"])
def test_other_names_are_no_bands(name: str) -> None:
    with pytest.raises(ValueError, match="is not a band"):
        parse_band(name)
