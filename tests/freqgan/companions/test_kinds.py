"""What all companions have in common: they train, blend, resume to the same bytes and are generated from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from freqgan.companions.image_generator import ImageGenerator
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.settings import ModelSettings
from freqgan.tensor_dicts import State, tensors_of
from freqgan.training.companion_stage import CompanionStage
from freqgan.training.image_stage import ImageStage
from tests.support.companions import (
    ADVERSARIAL_KINDS,
    LINEAR,
    OWN_LOSS_KINDS,
    companion_of,
    companion_settings,
    stage_of,
    stage_step,
)
from tests.support.models import statistics_of

KINDS = (*ADVERSARIAL_KINDS, *OWN_LOSS_KINDS, LINEAR)


def stored(state: State) -> State:
    """A copy as a checkpoint has it: in C order, without history."""
    return {
        name: value.detach().clone().contiguous() if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }


def assert_same(first: State, second: State) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
            assert torch.equal(value, other), name
        else:
            assert value == other, name


def assert_resumes(settings: ModelSettings, stop: int = 3, end: int = 5) -> None:
    """Steps after a stop give the bytes that they give without."""
    whole, stopped = stage_of(settings), stage_of(settings)
    for step in range(end):
        numbers = stage_step(whole, step)
        if step < stop:
            stage_step(stopped, step)
    resumed = stage_of(settings)
    resumed.load_state_dict(stored(stopped.state_dict()))
    for step in range(stop, end):
        assert stage_step(resumed, step) == numbers or step < end - 1
    assert_same(stored(whole.state_dict()), stored(resumed.state_dict()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_blended_companion_resumes_to_the_same_bytes_in_the_middle_of_a_pool(kind: str) -> None:
    assert_resumes(companion_settings(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [{"channels": 1, "bit_depth": 16}, {"classes": 3, "channels": 3}],
    ids=["grey of 16 bits", "labels"],
)
def test_a_companion_alone_resumes_to_the_same_bytes(kind: str, changes: dict[str, Any]) -> None:
    assert_resumes(companion_settings(kind, plan={"bands": "none"}, **changes), stop=1, end=2)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_model_are_those_of_its_averaged_companion(kind: str) -> None:
    settings = companion_settings(kind, classes=2, plan={"bands": "none"})
    stage = stage_of(settings)
    stage_step(stage, 0)
    state = tensors_of(stage.state_dict())
    model = Synthesiser(settings, statistics_of(settings), {"image": state})
    images = model.sample(0, 3).images
    assert images.shape == (3, 3, settings.image_size, settings.image_size)
    assert torch.isfinite(images).all()
    torch.testing.assert_close(model.sample(0, 1, first=2).images[0], images[2], rtol=0, atol=0)
    assert not torch.equal(model.sample(1, 3).images, images)
    generator = ImageGenerator(stage.chain)
    generator.load_state_dict({k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")})


@pytest.mark.parametrize("kind", OWN_LOSS_KINDS)
def test_alpha_learns_from_d_o_and_the_companion_does_not(kind: str) -> None:
    """No gradient of D_o reaches it: its weights are the same whatever the chain makes, and alpha is not."""
    settings = companion_settings(kind, stage={"alpha_learning_rate": 0.05})
    first, second = stage_of(settings), stage_of(settings)
    assert isinstance(first, ImageStage)
    assert isinstance(second, ImageStage)
    assert first.solo_trainer is None
    assert first.companion_trainer is not None
    assert second.companion_trainer is not None
    numbers = [stage_step(first, step) for step in range(2)][-1]
    assert numbers["alpha"] != 0.5
    assert "tie" not in numbers
    with torch.no_grad():
        for parameter in second.trainer.discriminator.parameters():
            parameter.add_(0.1)
    assert [stage_step(second, step) for step in range(2)][-1]["alpha"] != numbers["alpha"]
    first_state, second_state = first.companion_trainer.state_dict(), second.companion_trainer.state_dict()
    assert_same(stored(first_state), stored(second_state))


def test_a_companion_alone_has_no_discriminator() -> None:
    for kind in OWN_LOSS_KINDS:
        stage = stage_of(companion_settings(kind, plan={"bands": "none"}))
        assert isinstance(stage, CompanionStage)
        assert not any("discriminator" in name for name in stage.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_sides_that_are_no_powers_of_two(kind: str) -> None:
    companion = companion_of(kind, image_size=12, levels=1)
    noise = torch.randn(2, companion.numbers, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = companion.sample(noise, None)
    assert images.shape == (2, 3, 12, 12)
    assert math.isfinite(float(images.abs().max()))
