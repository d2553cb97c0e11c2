"""What the image stage tells the bands: right gradients, applied to the step they belong to, the same everywhere."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cluster.stages.lag_buffer import BandBuffer, BandStep, GradientBuffer
from freqgan.errors import RunError
from freqgan.model.settings import ModelSettings
from freqgan.training.band_gan import BandGan, feedback_loss
from freqgan.training.image_stage import ImageStage
from freqgan.training.stage import Feedback
from tests.support.models import TinyRun, chain_of, pictures, tiny_settings

STILL = {"learning_rate": 1e-12, "learning_rate_final": 1e-12}
"""Nothing moves, so that the losses of one step are a function of its inputs alone."""


def outputs_of(settings: ModelSettings, seed: int = 0) -> dict[str, Tensor]:
    chain, rng = chain_of(settings), torch.Generator().manual_seed(seed)
    return {
        gan.name: torch.randn(settings.batch, len(gan.bands) * settings.channels, *chain.gan_size(gan), generator=rng)
        for gan in chain.plan.gans
    }


def total_loss(stage: ImageStage, outputs: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    settings = stage.settings
    labels = torch.zeros(settings.batch, dtype=torch.int64)
    result = copy.deepcopy(stage).step(1, pictures(settings), labels, outputs)
    share = 1 - stage.solo_count / settings.batch  # D_o judges that much of the batch
    judges = [f"loss_g_{level}" for level in stage.level_discriminators.trainers]
    return share * result.metrics["loss_g"] + sum(result.metrics[name] for name in judges), result.feedback


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"levels": 2},
        {"levels": 2, "plan": {"strict_nesting": True, "high_gans": {1: 1}}, "transform": "dwt:bior2.2"},
        {"levels": 2, "image_stage": {"alpha": "per_band"}, "plan": {"low_gans": {2: 2}}},
    ],
    ids=str,
)
def test_feedback_is_the_derivative_of_the_losses_through_the_inverse_transform(changes: dict[str, object]) -> None:
    """Central differences along random directions of every band."""
    settings = tiny_settings(optimiser=STILL, loss={"penalty_interval": 1000}, batch=8, **changes)
    stage, outputs = ImageStage(chain_of(settings)), outputs_of(settings)
    for layer in [*stage.trainer.discriminator.modules(), *stage.level_discriminators.trainers.values()]:
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.mul_(3)  # logits that differ, so that no loss is flat
    gradients = total_loss(stage, outputs)[1]
    assert set(gradients) == set(outputs)
    for number, name in enumerate(outputs):
        direction = torch.randn(outputs[name].shape, generator=torch.Generator().manual_seed(number))
        direction += 10 * gradients[name] / gradients[name].norm() * direction.norm() / 10
        step = 1e-3
        plus, minus = ({**outputs, name: outputs[name] + sign * step * direction} for sign in (1, -1))
        measured = (total_loss(stage, plus)[0] - total_loss(stage, minus)[0]) / (2 * step)
        assert measured == pytest.approx(float((gradients[name] * direction).sum()), rel=0.02, abs=1e-5), name


@pytest.mark.parametrize("balance", [False, True])
def test_a_band_follows_its_feedback(balance: bool) -> None:
    """Its output for the noise of the step that the feedback is of moves against the gradient."""
    settings = tiny_settings(feedback={"weight": 1e3, "balance": balance, "lag": 1, "reach": 10})
    chain = chain_of(settings)
    gan = BandGan(chain, chain.plan.gan("HL1"))
    labels = torch.zeros(settings.batch, dtype=torch.int64)
    outputs = {name: x for name, x in outputs_of(settings).items() if name == "LL1"}
    gradient = torch.randn(settings.batch, 3, 8, 8, generator=torch.Generator().manual_seed(3)) / 100
    before = gan.forward(4, labels, outputs)
    later = outputs_of(settings, seed=9)
    result = gan.step(5, pictures(settings), labels, later, Feedback(4, labels, outputs, before, gradient))
    moved = gan.forward(4, labels, outputs) - before
    assert float((moved * gradient).sum() / moved.norm() / gradient.norm()) < -0.2
    assert result.metrics["feedback"] > 0


def test_feedback_has_a_least_within_reach() -> None:
    before, gradient = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8) * 1e-3
    strength = gradient.square().mean().sqrt()
    at = before.clone().requires_grad_()
    (slope,) = torch.autograd.grad(feedback_loss(at, before, gradient, strength, 0.2), at)
    torch.testing.assert_close(slope, gradient)
    least = (before - 0.2 * gradient / strength).requires_grad_()
    (slope,) = torch.autograd.grad(feedback_loss(least, before, gradient, strength, 0.2), least)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-8, rtol=0)
    nothing = torch.zeros_like(gradient)
    assert float(feedback_loss(before, before, nothing, strength, 0.2)) == 0


def test_balance_makes_feedback_as_strong_as_the_bands_own_discriminator() -> None:
    settings = tiny_settings(feedback={"weight": 1.0, "lag": 1})
    strengths = []
    for scale in (1e-3, 1e3):
        chain = chain_of(settings)
        gan = BandGan(chain, chain.plan.gan("HL1"))
        outputs, labels = outputs_of(settings), torch.zeros(settings.batch, dtype=torch.int64)
        gradient = scale * torch.randn(settings.batch, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        told = Feedback(4, labels, outputs, gradient, gradient)
        strengths.append(gan.step(5, pictures(settings), labels, outputs, told).metrics["feedback"])
    assert strengths[0] == pytest.approx(strengths[1], rel=1e-4)


def test_without_weight_nothing_is_sent_and_no_discriminator_is_built() -> None:
    run = TinyRun(tiny_settings(levels=2, feedback={"weight": 0.0}))
    run.step(0)
    assert run.feedback[0] == {}
    assert not run.image.level_discriminators.trainers


def test_a_plan_of_no_gans_trains_the_conventional_generator_alone() -> None:
    run = TinyRun(tiny_settings(plan={"bands": "none"}))
    before = {name: x.clone() for name, x in run.states()["image"].items()}
    outputs, metrics = run.step(0)
    assert outputs == {}
    assert set(metrics) == {"image"}
    assert any(not torch.equal(before[name], x) for name, x in run.states()["image"].items())
    made = run.synthesiser().sample(0, 3)
    assert torch.equal(made.images, made.conventional)
    assert len(made.sub_images) == 4
    torch.testing.assert_close(run.chain.image(made.sub_images), made.images, atol=1e-5, rtol=0)


def test_shares_of_more_than_a_batch_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"solo_share \+ chain_share is 1.5"):
        tiny_settings(image_stage={"solo_share": 0.75, "chain_share": 0.75})
    with pytest.raises(ValidationError, match=r"image_stage.solo_share: 0.9 of a batch of 4 leaves none"):
        tiny_settings(image_stage={"solo_share": 0.9, "chain_share": 0})


def test_steps_older_than_the_lag_are_forgotten_and_the_others_survive_a_checkpoint() -> None:
    kept = GradientBuffer(2)
    for step in range(5):
        kept.add(step, {"a.b": torch.full((2,), step)})
    assert list(kept.steps) == [3, 4]
    again = GradientBuffer(2)
    again.load(kept.tensors() | {"generator.weight": torch.zeros(3)})
    assert again.at(3)["a.b"].tolist() == [3, 3]
    with pytest.raises(RunError, match=r"step 2; there are steps \[3, 4\]"):
        again.at(2)


def test_a_step_of_a_band_is_stored_by_the_names_of_its_gans_and_comes_back_with_its_own_rows() -> None:
    steps = BandBuffer(2, "HL1")
    steps.add(7, BandStep(torch.tensor([3, 4]), {"LL1": torch.ones(2, 3)}, torch.tensor([[5.0], [6.0]])))
    stored = steps.tensors()
    assert list(stored) == ["kept.7.LL1", "kept.7.HL1", "kept.7.labels"]
    assert steps.keys_of("HL1") == ["kept.7.HL1"]
    again = BandBuffer(2, "HL1")
    again.load(stored)
    again.cut(slice(1, 2))
    labels, inputs, output = again.at(7)
    assert (labels.tolist(), list(inputs), output.tolist()) == ([3, 4], ["LL1"], [[6.0]])
    assert inputs["LL1"].shape == (2, 3)
    with pytest.raises(KeyError):
        again.load({"kept.7.LL1": torch.ones(2, 3)})
