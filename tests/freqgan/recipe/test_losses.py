"""Adversarial losses and the gradient penalty against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from freqgan.recipe.losses import discriminator_loss, generator_loss, gradient_penalty, penalty_strength
from freqgan.recipe.settings import LossKind, LossSettings

KINDS: list[LossKind] = ["relativistic", "hinge"]


def logits(seed: int, shape: tuple[int, ...] = (6, 1)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def test_relativistic_loss_is_log_2_at_equal_logits() -> None:
    same = logits(0)
    assert discriminator_loss("relativistic", same, same).item() == pytest.approx(math.log(2))
    assert generator_loss("relativistic", same, same).item() == pytest.approx(math.log(2))


def test_relativistic_loss_is_its_formula_and_mirrored() -> None:
    real, fake = logits(1), logits(2)
    expected = [math.log1p(math.exp(f - r)) for r, f in zip(real.flatten(), fake.flatten(), strict=True)]
    assert discriminator_loss("relativistic", real, fake).item() == pytest.approx(sum(expected) / 6, rel=1e-6)
    assert torch.equal(generator_loss("relativistic", real, fake), discriminator_loss("relativistic", fake, real))


def test_relativistic_loss_survives_huge_logits() -> None:
    """log(1 + exp(1000)) overflows; softplus does not."""
    assert discriminator_loss("relativistic", torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5, 0.0])
    assert discriminator_loss("hinge", real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.5 + 1) / 3)
    assert generator_loss("hinge", real, fake).item() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_point_the_right_way(kind: LossKind) -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    assert (by_real < 0).all()  # descending raises D(real) ...
    assert (by_fake > 0).all()  # ... and lowers D(fake)
    (by_fake,) = torch.autograd.grad(generator_loss(kind, real, fake), fake)
    assert (by_fake < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_half_precision_logits_are_float32(kind: LossKind) -> None:
    half = logits(3, (2, 1, 4, 4)).bfloat16()
    assert discriminator_loss(kind, half, half).dtype == torch.float32
    assert generator_loss(kind, half, half).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_do_not_pair_are_refused(kind: LossKind) -> None:
    with pytest.raises(ValueError, match="do not pair"):
        discriminator_loss(kind, logits(0), logits(1).flatten())
    with pytest.raises(ValueError, match="do not pair"):
        generator_loss(kind, logits(0), logits(1).flatten())


def test_penalty_of_a_linear_critic_is_its_squared_weight() -> None:
    critic = nn.Linear(12, 1)
    inputs = torch.randn(5, 3, 2, 2, requires_grad=True)
    penalty = gradient_penalty(critic(inputs.flatten(1)), inputs)
    torch.testing.assert_close(penalty, critic.weight.square().sum())
    torch.autograd.backward(penalty)  # d ||w||^2 / dw = 2 w: the penalty trains the critic
    assert critic.weight.grad is not None
    torch.testing.assert_close(critic.weight.grad, 2 * critic.weight.detach())


def test_penalty_is_a_mean_over_samples_and_a_sum_over_patches() -> None:
    """D(x) = x^2 / 2 per element has gradient x, so the penalty is the mean of ||x||^2."""
    inputs = logits(4, (3, 2, 4, 4)).requires_grad_()
    expected = inputs.detach().square().sum() / 3
    torch.testing.assert_close(gradient_penalty(inputs.square() / 2, inputs).detach(), expected)


def test_penalty_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 1)).double()
    inputs = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(critic(inputs), inputs)
    step = 1e-5
    with torch.no_grad():
        moves = step * torch.eye(16, dtype=torch.float64).reshape(16, 1, 1, 4, 4)
        slopes = [(critic(inputs + move) - critic(inputs - move)).flatten() / (2 * step) for move in moves]
    expected = torch.stack(slopes).square().sum(0).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_penalty_under_autocast_is_that_without() -> None:
    """The critic ran in float32; an autocast around the penalty must not take the gradient in bfloat16."""
    torch.manual_seed(0)
    first, last = nn.Linear(16, 32), nn.Linear(32, 1)
    inputs = torch.randn(4, 16, requires_grad=True)
    scores = last(torch.nn.functional.softplus(first(inputs)))
    weights = [first.weight, first.bias, last.weight]
    plain = gradient_penalty(scores, inputs)
    expected = torch.autograd.grad(plain, weights, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wrapped = gradient_penalty(scores, inputs)
    gradients = torch.autograd.grad(wrapped, weights)
    assert wrapped.dtype == torch.float32
    assert torch.equal(plain, wrapped)
    torch.testing.assert_close(gradients, expected)


def test_penalty_strength_follows_the_area() -> None:
    assert penalty_strength(0.05, (32, 32)) == 0.05
    assert penalty_strength(0.05, (32, 128)) == pytest.approx(0.2)
    assert penalty_strength(0.05, (8, 8)) == pytest.approx(0.05 / 16)


def test_settings_refuse_what_means_nothing() -> None:
    assert LossSettings().kind == "relativistic"
    for wrong in ({"kind": "wasserstein"}, {"gamma": -1}, {"penalty_interval": 0}, {"gama": 1}):
        with pytest.raises(ValidationError):
            LossSettings.model_validate(wrong)
