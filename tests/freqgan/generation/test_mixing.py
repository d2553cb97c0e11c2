"""Ways between two samples, coarse noise of one with fine noise of another, and less noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.generation.mixing import interpolated, mixed_coefficients, mixed_noises, shares_of_frames, slerp
from freqgan.generation.synthesiser import Draws, Synthesiser
from tests.support.models import TinyRun, tiny_settings

PACKED: dict[str, Any] = {
    "classes": 3,
    "conditioning": {"kinds": ["class", "embedding"], "embedding_length": 4},
}


def model_of(**changes: Any) -> Synthesiser:
    run = TinyRun(tiny_settings(**changes))
    run.step(0)
    return run.synthesiser()


def pair(model: Synthesiser) -> tuple[Draws, Draws]:
    draws = model.draws(3, 2)
    return draws.rows(slice(0, 1)), draws.rows(slice(1, 2))


def test_an_arc_keeps_the_length_of_normal_vectors() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 256, generator=rng)
    middle = slerp(first, second, 0.5)
    between = (first.norm(dim=1) + second.norm(dim=1)) / 2
    torch.testing.assert_close(middle.norm(dim=1), between)
    torch.testing.assert_close(slerp(first, second, 0.0), first)
    torch.testing.assert_close(slerp(first, second, 1.0), second)
    torch.testing.assert_close(slerp(first, first, 0.3), first)
    assert float(torch.lerp(first, second, 0.5).norm()) < 0.8 * float(middle.norm())  # the chord is too short
    opposite = slerp(first, -first, 0.5)
    assert bool(opposite.isfinite().all())


@pytest.mark.parametrize("changes", [{}, {"classes": 2}, {"plan": {"low_gans": {1: 2}}}, PACKED])
def test_a_way_begins_and_ends_at_its_samples(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    first, second = pair(model)
    images = model.draw(interpolated(model.chain, first, second, shares_of_frames(5))).images
    assert len(images) == 5
    both = torch.cat([model.draw(first).images, model.draw(second).images])
    torch.testing.assert_close(images[[0, 4]], both, atol=1e-4, rtol=0)
    steps = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    assert float(steps.max()) < float((images[4] - images[0]).norm())


def test_numbers_go_along_and_labels_change_in_the_middle() -> None:
    model = model_of(**PACKED)
    first, second = pair(model)
    targets = interpolated(model.chain, first, second, shares_of_frames(5)).targets
    columns = model.settings.target_layout.columns
    assert targets is not None
    assert first.targets is not None
    assert second.targets is not None
    labels = targets[:, columns["label"]].flatten()
    assert labels[:2].tolist() == first.targets[:, columns["label"]].flatten().tolist() * 2
    assert labels[2:].tolist() == second.targets[:, columns["label"]].flatten().tolist() * 3
    middle = (first.targets[0] + second.targets[0])[columns["embedding"]] / 2
    torch.testing.assert_close(targets[2, columns["embedding"]], middle)


@pytest.mark.parametrize(
    "changes", [{"levels": 2}, {"levels": 2, "plan": {"strict_nesting": True, "high_gans": {1: 1}}}]
)
def test_detail_is_of_the_fine_noise_and_the_picture_of_the_coarse(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    first, second = pair(model)
    mixed = model.draw(mixed_noises(model.chain, first, second, 2))
    assert torch.equal(mixed.sub_images[Band(2, "LL")], model.draw(first).sub_images[Band(2, "LL")])
    for level, orientation in ((2, "HL"), (1, "HH")):
        band = Band(level, orientation)
        assert not torch.equal(mixed.sub_images[band], model.draw(first).sub_images[band])
    assert torch.equal(mixed.conventional, model.draw(first).conventional)
    same = model.draw(mixed_noises(model.chain, first, first, 1))
    assert torch.equal(same.images, model.draw(first).images)


def test_mixed_coefficients_are_of_two_images_each_made_for_itself() -> None:
    model = model_of(levels=2, plan={"strict_nesting": True})
    model.image = None  # the images of the chain alone
    first, second = pair(model)
    images = mixed_coefficients(model, first, second, 2)
    bands, coarse, fine = (model.analysed(images), model.draw(first).sub_images, model.draw(second).sub_images)
    torch.testing.assert_close(bands[Band(2, "LL")], coarse[Band(2, "LL")], atol=1e-4, rtol=1e-4)
    for level in (1, 2):
        band = Band(level, "HL")
        torch.testing.assert_close(bands[band], fine[band], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "level", "message"),
    [
        ({}, 2, "give --at 1"),
        ({"levels": 2}, 0, "give --at 1 or 2"),
        ({"plan": {"bands": "none"}}, 1, "--mix: the model"),
    ],
)
def test_a_level_that_is_not_there_is_refused(changes: dict[str, Any], level: int, message: str) -> None:
    model = model_of(**changes)
    first, second = pair(model)
    with pytest.raises(InputError, match=message):
        mixed_noises(model.chain, first, second, level)


def test_less_noise_is_less_varied() -> None:
    model = model_of()
    draws = model.draws(0, 16)
    images, tame, none = (model.draw(draws.scaled(factor)).images for factor in (1.0, 0.5, 0.0))
    assert torch.equal(images, model.draw(draws).images)
    assert float(tame.var(0).mean()) < float(images.var(0).mean())
    assert float(none.var(0).max()) < 1e-8
