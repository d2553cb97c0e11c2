from __future__ import annotations

from typing import Any

import pytest
import torch

from freqgan.errors import InputError, RunError
from freqgan.model.settings import ModelSettings
from freqgan.tensor_dicts import counters_of
from freqgan.training.band_gan import BandGan
from tests.support.models import TinyRun, chain_of, pictures, tiny_settings

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "two levels": {"levels": 2},
    "labels": {"classes": 2},
    "gray": {"channels": 1},
    "hinge": {"loss": {"kind": "hinge"}},
    "cycles": {"plan": {"cycles": 2}},
    "ensembles": {"plan": {"low_gans": {1: 2}, "high_gans": {1: 1}}},
    "no conditions": {"plan": {"condition": "none"}},
    "strict nesting": {"levels": 2, "plan": {"strict_nesting": True}},
    "generated conditions": {"teacher_forcing": {"start": 0.5, "end": 0.0}},
    "odd size": {"image_size": 19, "transform": "dwt:db2"},
    "per-band alpha": {"image_stage": {"alpha": "per_band"}},
    "lazy penalty, hurwitz": {"loss": {"penalty_interval": 2}, "noise": {"dimensions": 16, "training": "hurwitz"}},
}


def same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    assert {(s, n) for s in a for n in a[s]} == {(s, n) for s in b for n in b[s]}
    return all(torch.equal(a[stage][name], b[stage][name]) for stage in a for name in a[stage])


def copied(states: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, torch.Tensor]]:
    return {stage: {name: x.clone() for name, x in tensors.items()} for stage, tensors in states.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_a_pure_function_of_the_state_and_resumes_bit_exactly(variant: str) -> None:
    settings = tiny_settings(**VARIANTS[variant])
    run = TinyRun(settings)
    run.step(0)
    outputs, metrics = run.step(1)
    saved = copied(run.states())
    counters = {stage.name: counters_of(stage.state_dict()) for stage in run.stages}
    run.step(2)

    again = TinyRun(settings)
    again.feedback = run.feedback
    for stage in again.stages:
        stage.load_state_dict({**saved[stage.name], **counters[stage.name]})
    assert same(saved, again.states())
    again.step(2)
    assert same(run.states(), again.states())
    assert not same(saved, run.states())
    for gan in run.chain.plan.gans:
        assert outputs[gan.name].shape == (settings.batch, settings.channels * len(gan.bands), *run.chain.gan_size(gan))
    assert all(torch.tensor(list(numbers.values())).isfinite().all() for numbers in metrics.values())


def test_penalties_of_no_strength_change_nothing() -> None:
    """The second derivative's gradients have another memory layout, which a fused optimiser takes as it finds it.

    Kernels round by layout too, by some 1e-8; weights taken in a wrong order differ by an update, some 1e-3.
    """
    never = {"gamma": 0.0, "gamma_final": 0.0, "penalty_interval": 1000}
    runs = [TinyRun(tiny_settings(loss=never | {"penalty_interval": k})) for k in (1000, 1)]
    for run in runs:
        for step in range(3):
            run.step(step)
    first, second = (run.states() for run in runs)
    for stage in first:
        for name, tensor in first[stage].items():
            torch.testing.assert_close(tensor, second[stage][name], atol=1e-6, rtol=0, msg=f"{stage} {name}")


def test_seeds_give_other_weights_and_other_noise() -> None:
    first, second = (BandGan(chain, chain.plan.gans[0]) for chain in (chain_of(tiny_settings(seed=s)) for s in (0, 1)))
    mix = "head.mix.weight"
    assert not torch.equal(first.trainer.generator.get_parameter(mix), second.trainer.generator.get_parameter(mix))


def test_a_model_begins_the_same_in_every_process() -> None:
    """Also with spectral norms, whose power iterations begin at random."""
    settings = tiny_settings(loss={"kind": "hinge"})
    first = TinyRun(settings).states()
    torch.rand(7)
    second = TinyRun(settings).states()
    for stage, tensors in first.items():
        assert all(torch.equal(tensor, second[stage][name]) for name, tensor in tensors.items()), stage


def test_every_weight_is_trained() -> None:
    run = TinyRun(tiny_settings(levels=2, classes=2, teacher_forcing={"start": 0.5, "end": 0.5}))
    before = copied(run.states())
    for step in range(3):  # layers behind one that starts at zero move from the second step on
        run.step(step)
    still = [
        (stage, name)
        for stage, tensors in run.states().items()
        for name, tensor in tensors.items()
        if name.startswith(("generator.", "discriminator.")) and torch.equal(tensor, before[stage][name])
    ]
    # Noise maps are constants. A relativistic loss sees only differences of logits, so biases of the
    # discriminator that reach the logit linearly cancel.
    fixed = [n for _, n in still if not n.endswith("noise_maps") and not (n.startswith("disc") and n.endswith("bias"))]
    assert fixed == []


def test_output_is_that_of_the_chain_not_of_teacher_forcing() -> None:
    """With all samples teacher-forced, the output still comes from the generated condition."""
    settings = tiny_settings(teacher_forcing={"start": 1.0, "end": 1.0})
    chain = chain_of(settings)
    gan = BandGan(chain, chain.plan.gan("HL1"))
    generator = gan.trainer.generator
    torch.nn.init.normal_(generator.get_parameter("skip.weight"))
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    given = {"LL1": torch.randn(4, 3, 8, 8)}
    out = gan.step(0, pictures(settings), torch.zeros(4, dtype=torch.int64), given).output
    generator.load_state_dict(before)
    condition = chain.condition(gan.gan, chain.bands(given, {}))
    noise = chain.noise("haar", 0, batch=4)[1]
    with torch.no_grad():
        expected = generator(noise, condition.planes, condition.base, torch.zeros(4), None)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


def test_low_band_discriminators_see_no_condition_and_high_ones_do() -> None:
    chain = chain_of(tiny_settings(levels=2))
    assert {gan.name: BandGan(chain, gan).conditional for gan in chain.plan.gans} == {
        "LL2": False, "HL2": True, "LH2": True, "HH2": True, "LL1": False, "HL1": True, "LH1": True, "HH1": True,
    }  # fmt: skip
    blind = chain_of(tiny_settings(band_discriminator={"width": 8, "coarse_width": 8, "condition": False}))
    assert not BandGan(blind, blind.plan.gan("HL1")).conditional


def test_a_loss_that_is_not_finite_stops_before_any_weight_changes() -> None:
    settings = tiny_settings()
    chain = chain_of(settings)
    gan = BandGan(chain, chain.plan.gans[0])
    torch.nn.init.constant_(gan.trainer.generator.get_parameter("head.mix.bias"), float("nan"))
    before = {name: tensor.clone() for name, tensor in gan.trainer.discriminator.state_dict().items()}
    with pytest.raises(RunError, match=r"LL1: the discriminator's loss or gradient is not finite at step 0"):
        gan.step(0, pictures(settings), torch.zeros(4, dtype=torch.int64), {})
    after = gan.trainer.discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 4}, "levels: 4 is too deep for image_size 16.*the largest that fits is 2"),
        ({"levels": 2, "noise": {"dimensions": 7}}, "8 generators need one each: set noise.dimensions to 8"),
        ({"levels": 2, "noise": {"dimensions": 12}}, "8 generators need one each"),
        ({"transform": "dwt:haarr"}, "haar"),
    ],
)
def test_bad_combinations_are_refused_with_the_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_settings(**changes)


def test_input_error_keeps_its_message_through_validation() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        ModelSettings(image_size=16, levels=4)
    assert isinstance(caught.value.errors()[0]["ctx"]["error"], InputError)
