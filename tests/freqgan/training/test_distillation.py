"""Students of flow experts: how they begin, what they learn, replays, replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from freqgan.errors import InputError
from freqgan.model.band_statistics import BandMoments
from freqgan.model.chain import Chain, Condition
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_expert import FlowExpert
from freqgan.model.settings import ModelSettings
from freqgan.pixels import from_pixels
from freqgan.tensor_dicts import tensors_of
from freqgan.training.distillation import Distillation
from freqgan.training.experts import build_expert
from freqgan.training.stage import StepResult
from tests.support.models import CPU, chain_of, pictures, tiny_settings
from tests.support.thread_replicas import at_once, thread_shares

SMALL = {"width": 8, "coarse_width": 8}
STUDENTS: dict[str, Any] = {
    "experts": {"default": "student"},
    "plan": {"high_gans": {1: 1}, "strict_nesting": True},
    "flow": {"coarse_network": SMALL, "band_network": SMALL},
    "image_stage": {"enabled": False},
    "distil": {"evaluations": 2, "adversarial": 0.1},
}
EIGHT = GenerationSettings(evaluations=8, solver="heun")
ONE = GenerationSettings(evaluations=1, solver="euler")
NOTHING_SEEN = Condition(None, None)


def students_settings(**changes: Any) -> ModelSettings:
    groups = {key: STUDENTS[key] | value for key, value in changes.items() if isinstance(STUDENTS.get(key), dict)}
    return tiny_settings(**(STUDENTS | changes | groups))


def taught(chain: Chain, seed: int = 7) -> dict[str, dict[str, Tensor]]:
    """Weights of a teacher for every expert: at random, where a fresh network says nothing of its input."""
    rng = torch.Generator().manual_seed(seed)
    teachers = {}
    for gan in chain.plan.gans:
        weights = Distillation(chain, gan).teacher.networks.state_dict()
        teachers[gan.name] = {
            f"average.{name}": 0.1 * torch.randn(x.shape, generator=rng) + x for name, x in weights.items()
        }
    return teachers


def students_of(count: int = 1, name: str = "HL-LH-HH1", **changes: Any) -> list[Distillation]:
    chain = chain_of(students_settings(batch=8, **changes))
    teacher = taught(chain)[name]
    return [Distillation(chain, chain.plan.gan(name), share, teacher) for share in thread_shares(count)]


def step_of(student: Distillation, step: int) -> Callable[[], StepResult]:
    settings = student.settings
    labels = torch.arange(settings.batch) % max(1, settings.classes)
    return lambda: student.step(step, pictures(settings, seed=100 + step), labels, {})


def copies(student: Distillation) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors_of(student.state_dict()).items()}


def test_a_student_begins_as_one_step_of_its_teacher() -> None:
    (student,) = students_of()
    inputs = student._inputs(0, pictures(student.settings, 8), torch.zeros(8, dtype=torch.int64))
    begun = student._student_sample(inputs)
    torch.testing.assert_close(begun, student.teacher.sample(*inputs, ONE))
    assert (student._teacher_sample(inputs) - begun).abs().max() > 1e-3
    asked = student.expert.sample(*inputs, EIGHT)
    assert torch.equal(asked, student.expert.sample(*inputs, ONE)), "whatever is asked"


def test_a_student_of_a_guided_teacher_needs_no_guide() -> None:
    (guided,) = students_of(flow={"guide_at": 0.2}, distil={"guidance": {"high": 1}})
    (plain,) = students_of(flow={"guide_at": 0.2})
    assert guided.teacher.networks.guide is not None
    assert guided.expert.networks.guide is None
    inputs = guided._inputs(0, pictures(guided.settings, 8), torch.zeros(8, dtype=torch.int64))
    assert (guided._teacher_sample(inputs) - plain._teacher_sample(inputs)).abs().max() > 1e-3
    assert torch.equal(guided._student_sample(inputs), plain._student_sample(inputs))


def test_a_student_has_no_likelihood() -> None:
    (student,) = students_of(name="LL1")
    with pytest.raises(InputError, match=r"LL1 is a student.* its teacher"):
        student.expert.log_likelihood(torch.zeros(1, 3, 8, 8), NOTHING_SEEN, torch.zeros(1), None)


def test_a_step_is_a_function_of_state_and_inputs() -> None:
    first, second = students_of(classes=2)[0], students_of(classes=2)[0]
    for step in range(3):
        step_of(first, step)()
    second.load_state_dict({**copies(first), "generator_updates": 3, "discriminator_updates": 3})
    teacher = {name: x.clone() for name, x in first.teacher.networks.state_dict().items()}
    assert step_of(first, 3)().metrics == step_of(second, 3)().metrics
    ours, theirs = tensors_of(first.state_dict()), tensors_of(second.state_dict())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert all(torch.equal(x, teacher[name]) for name, x in first.teacher.networks.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "numbers", "moved"),
    [
        ({}, {"loss", "loss_d", "loss_g"}, {"generator", "discriminator"}),
        ({"adversarial": 0}, {"loss"}, {"generator"}),
        ({"regression": 0}, {"loss", "loss_d", "loss_g"}, {"generator", "discriminator"}),
    ],
    ids=["both", "regression", "discriminator"],
)
def test_a_loss_of_weight_zero_trains_nothing(changes: Mapping[str, float], numbers: set[str], moved: set[str]) -> None:
    (student,) = students_of(distil=changes)
    before = copies(student)
    metrics = step_of(student, 1)().metrics
    assert numbers == metrics.keys() & {"loss", "loss_d", "loss_g"}
    after = tensors_of(student.state_dict())
    changed = {name.partition(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed & {"generator", "discriminator"} == moved


@pytest.mark.parametrize("changes", [{}, {"classes": 3, "flow": {"condition_noise": 0.3}}], ids=str)
def test_replicas_equal_one_and_each_other(changes: dict[str, Any]) -> None:
    one, many = students_of(1, **changes), students_of(2, **changes)
    for step in range(2):
        expected = step_of(one[0], step)().metrics
        results = at_once([step_of(student, step) for student in many])
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    first, second = (tensors_of(student.state_dict()) for student in many)
    whole = tensors_of(one[0].state_dict())
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        if not name.endswith("judge.bias"):  # relativistic losses do not depend on it
            torch.testing.assert_close(tensor, whole[name], rtol=2e-4, atol=2e-5)


def two_kinds(count: int, seed: int) -> Tensor:
    """Grey pictures of 4 x 4 pixels, uint8: bright on the left or on the right, with some noise."""
    rng = torch.Generator().manual_seed(seed)
    left = torch.rand(count, 1, 1, 1, generator=rng) < 0.5
    bright = (torch.arange(4) < 2)[None, None, None] == left
    noise = 12 * torch.randn(count, 1, 4, 4, generator=rng)
    return (torch.where(bright, 190.0, 60.0) + noise).round().clamp(0, 255).to(torch.uint8)


def toy_chain(kind: str, images: int) -> Chain:
    settings = tiny_settings(
        image_size=4, channels=1, levels=0, batch=64, images=images, experts={"default": kind},
        image_stage={"enabled": False}, augmentation={"flip": False},
        flow={
            "coarse_network": {"width": 8, "coarse_width": 8, "heads": 1},
            "optimiser": {"learning_rate": 5e-3, "warmup_images": 1000},
        },
        distil={"learning_rate": 2e-3},
    )  # fmt: skip
    moments = BandMoments()
    moments.add(settings.band_transform().analyse(from_pixels(two_kinds(1000, seed=1), CPU)))
    return Chain(settings, moments.finish(), CPU)


def train(chain: Chain, teacher: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    expert = build_expert(chain, chain.plan.gans[0], teacher=teacher)
    labels = torch.zeros(64, dtype=torch.int64)
    for step in range(chain.settings.images // 64):
        expert.step(step, two_kinds(64, seed=100 + step), labels, {})
    return tensors_of(expert.state_dict())


def test_one_step_of_a_student_comes_near_its_teacher_where_one_of_the_teacher_does_not() -> None:
    """Of two kinds of pictures one step of a flow gives the mean, which is neither."""
    teacher = train(toy_chain("flow", 150 * 64))
    chain = toy_chain("student", 100 * 64)
    student = Distillation(chain, chain.plan.gans[0], teacher=teacher)
    weights = {name.removeprefix("average."): x for name, x in train(chain, teacher).items() if "average." in name}
    student.trainer.average.load_state_dict(weights)
    noise, strength = torch.randn(512, 1, 4, 4, generator=torch.Generator().manual_seed(3)), torch.zeros(512)

    def sample(expert: FlowExpert, how: GenerationSettings) -> Tensor:
        return expert.sample(noise, NOTHING_SEEN, strength, None, how)

    target, early = sample(student.teacher, EIGHT), sample(student.teacher, ONE)
    late = sample(student.expert, ONE)
    before, after = (float((x - target).square().mean()) for x in (early, late))
    assert early.std() < 0.6 * target.std(), "one step of the teacher has little contrast"
    assert after < before / 4
    assert late.std() == pytest.approx(float(target.std()), rel=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": {"HL-LH-HH1": "gan"}}, "LL1 are students and HL-LH-HH1=gan are not.*experts.default=student"),
        ({"image_stage": {"enabled": True}}, "image_stage.enabled=false"),
        ({"distil": {"evaluations": 3}}, "distil.evaluations: 3 is odd"),
        ({"distil": {"regression": 0, "adversarial": 0}}, "nothing is left to learn by"),
        ({"distil": {"guidance": {"LL": 1}}}, "distil.guidance: no expert or band is called 'LL'"),
        ({"distil": {"guidance": {"default": 1}}}, "flow.guide_at is 0"),
        ({"distil": {"label_guidance": 1}}, "classes=0"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        students_settings(**changes)
