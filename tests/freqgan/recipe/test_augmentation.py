"""Flips and shifts against slow per-sample references, and that they fit the bands."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from pydantic import ValidationError
from torch import Tensor

from freqgan.errors import InputError
from freqgan.recipe.augmentation import augment
from freqgan.recipe.settings import AugmentationSettings

FLIP = AugmentationSettings(flip=True)
SHIFT = AugmentationSettings(flip=False, shift=2)
BOTH = AugmentationSettings(flip=True, shift=1)


def images(batch: int = 16, height: int = 16, width: int = 24, dtype: torch.dtype = torch.uint8) -> Tensor:
    values = torch.randint(0, 256, (batch, 3, height, width), generator=torch.Generator().manual_seed(0))
    return values.to(dtype)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """The reference: numpy pads by reflection, then a window is cut."""
    pad = max(abs(down), abs(right))
    padded = np.pad(image.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    height, width = image.shape[1:]
    return torch.from_numpy(padded[:, pad - down : pad - down + height, pad - right : pad - right + width].copy())


def explanations(
    before: Tensor, after: Tensor, settings: AugmentationSettings, unit: int
) -> list[tuple[bool, int, int]]:
    """Every (flip, down, right) the settings allow that turns ``before`` into ``after``."""
    reach = range(-settings.shift * unit, settings.shift * unit + 1, unit)
    found = []
    for flip in (False, True) if settings.flip else (False,):
        source = before.flip(-1) if flip else before
        found += [(flip, d, r) for d in reach for r in reach if torch.equal(shifted(source, d, r), after)]
    return found


@pytest.mark.parametrize("settings", [FLIP, SHIFT, BOTH])
@pytest.mark.parametrize("levels", [1, 2])
def test_each_image_is_one_allowed_flip_and_shift(settings: AugmentationSettings, levels: int) -> None:
    before = images()
    after = augment(before, settings, levels, 1, 2)
    drawn = [explanations(b, a, settings, 2**levels) for b, a in zip(before, after, strict=True)]
    assert all(len(found) == 1 for found in drawn)
    assert len({found[0] for found in drawn}) > 1  # samples have draws of their own
    assert settings.shift == 0 or any(down != right for ((_, down, right),) in drawn)  # and so have axes


def test_flips_and_shifts_are_uniform() -> None:
    ramp = torch.arange(8.0)[None, :] + 100 * torch.arange(8.0)[:, None]
    after = augment(ramp.expand(4000, 1, 8, 8), AugmentationSettings(shift=1), 1, 5)
    flips = (after[:, 0, 4, 5] < after[:, 0, 4, 4]).float().mean()
    assert float(flips) == pytest.approx(0.5, abs=0.03)
    _, counts = torch.unique(after[:, 0, 4, 0].div(100).floor(), return_counts=True)
    assert len(counts) == 3
    assert float((counts / 4000 - 1 / 3).abs().max()) < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_every_dtype_gets_the_draw_of_uint8(dtype: torch.dtype) -> None:
    after = augment(images(dtype=dtype), BOTH, 2, 3)
    assert after.dtype == dtype
    assert torch.equal(after.to(torch.uint8), augment(images(), BOTH, 2, 3))


def test_it_is_a_function_of_its_seed_parts() -> None:
    first = augment(images(), BOTH, 2, 1, 7)
    torch.manual_seed(5)
    assert torch.equal(first, augment(images(), BOTH, 2, 1, 7))
    assert not torch.equal(first, augment(images(), BOTH, 2, 1, 8))


def test_shifts_leave_the_flips_as_they_were() -> None:
    """A symmetric image along y, constant along x but for its halves, shows its flip whatever the shift."""
    halves = torch.zeros(32, 1, 16, 16)
    halves[..., 8:] = 1.0
    flipped = [augment(halves, s, 1, 4)[:, 0, 0, 0] for s in (FLIP, AugmentationSettings(shift=2))]
    assert torch.equal(flipped[0], flipped[1])


def test_the_input_is_not_written_and_nothing_on_returns_it() -> None:
    before = images()
    copy = before.clone()
    augment(before, BOTH, 2, 1)
    assert torch.equal(before, copy)
    assert augment(before, AugmentationSettings(flip=False), 3, 1) is before


def test_non_contiguous_empty_and_single_batches() -> None:
    before = images().to(memory_format=torch.channels_last)
    assert torch.equal(augment(before, BOTH, 2, 1), augment(before.contiguous(), BOTH, 2, 1))
    assert augment(images()[:0], BOTH, 2, 1).shape == (0, 3, 16, 24)
    assert augment(images()[:1], BOTH, 2, 1).shape == (1, 3, 16, 24)


def test_shifts_move_sub_images_by_whole_coefficients() -> None:
    """Away from the border, the Haar bands of level 2 of the shifted image are those of the image, shifted."""
    settings, levels = AugmentationSettings(flip=False, shift=1), 2
    before = images(8, 32, 32, torch.float64)
    after = augment(before, settings, levels, 9)
    for source, result in zip(before, after, strict=True):
        ((_, down, right),) = explanations(source, result, settings, 4)
        bands = [pywt.wavedec2(x.numpy(), "haar", mode="periodization", level=levels)[0] for x in (source, result)]
        expected = np.roll(bands[0], (down // 4, right // 4), axis=(1, 2))
        np.testing.assert_allclose(bands[1][:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-9)


def test_a_shift_beyond_the_image_is_refused() -> None:
    settings = AugmentationSettings(shift=4)
    assert augment(images(2, 33, 64), settings, 3, 1).shape == (2, 3, 33, 64)
    with pytest.raises(InputError, match=r"augmentation\.shift = 4 .* 32 pixels .* 64 x 32: .* to 3 or less"):
        augment(images(2, 32, 64), settings, 3, 1)


def test_settings_refuse_what_means_nothing() -> None:
    for wrong in ({"shift": -1}, {"rotate": True}):
        with pytest.raises(ValidationError):
            AugmentationSettings.model_validate(wrong)
