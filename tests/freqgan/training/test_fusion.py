"""The jointly trained system: what its images are, that lambda can leave 0, and that replicas do what one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from freqgan.bands import Band
from freqgan.model.fusion import FusionGenerator, LinearBlend
from freqgan.model.fusion_settings import FusionSettings
from freqgan.model.settings import ModelSettings
from freqgan.runtime.data_parallel import ReplicaContext
from freqgan.runtime.graph_capture import WARM_UP
from freqgan.tensor_dicts import counters_of, tensors_of
from freqgan.training.fusion import FusionStage, auxiliary_share
from freqgan.training.stage import StepResult
from tests.support.models import FUSION, chain_of, pictures, tiny_settings
from tests.support.other_device import OTHER, other_device
from tests.support.replica_bounds import assert_near
from tests.support.tape import Tape
from tests.support.thread_replicas import at_once, thread_shares

BATCH = 8
FAST: dict[str, Any] = {"fusion": {"lambda_learning_rate": 0.02}}


def stage_of(share: ReplicaContext | None = None, **changes: Any) -> FusionStage:
    settings = tiny_settings(batch=BATCH, **FUSION, **changes)
    return FusionStage(chain_of(settings), share or ReplicaContext())


def stepped(stages: list[FusionStage], steps: int, first: int = 0) -> list[list[StepResult]]:
    """The results of every replica, step by step, from step ``first`` on."""
    settings, results = stages[0].settings, []
    labels = torch.arange(BATCH) % max(1, settings.classes)

    def at(stage: FusionStage, step: int) -> Callable[[], StepResult]:
        return lambda: stage.step(step, pictures(settings, seed=100 + step), labels, {})

    for step in range(first, steps):
        results.append(at_once([at(stage, step) for stage in stages]))
    return results


def lambdas(stage: FusionStage, steps: int) -> list[float]:
    return [result.metrics["lambda"] for (result,) in stepped([stage], steps)]


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"levels": 2, "classes": 2}, {"transform": "dct", "image_size": 20}, {"channels": 1}], ids=str
)
def test_images_are_the_share_lambda_of_the_bands_and_the_rest_of_g_o(changes: dict[str, Any]) -> None:
    settings = tiny_settings(**FUSION, **changes)
    generator = FusionGenerator(chain_of(settings))
    labels = torch.zeros(4, dtype=torch.int64) if settings.classes else None
    noise = torch.randn(4, 16)
    whole = generator.blended(*generator(noise, labels))
    assert torch.equal(whole.images, whole.conventional)  # lambda is 0 at the start
    bands = generator.chain.transform.analyse(whole.frequency)
    for band, x in generator.chain.statistics.denormalise_all(whole.sub_images).items():
        torch.testing.assert_close(bands[band], x, rtol=1e-4, atol=1e-4)
    assert len(whole.sub_images) == 1 + 3 * settings.levels
    for weight in (0.25, 1.0):
        nn.init.constant_(generator.blend.weight, weight)
        images = generator.blended(*generator(noise, labels)).images
        torch.testing.assert_close(images, (1 - weight) * whole.conventional + weight * whole.frequency)


@pytest.mark.parametrize(("split", "low"), [(None, 8), (3, 3)])
def test_the_noise_is_split_at_k(split: int | None, low: int) -> None:
    generator = FusionGenerator(chain_of(tiny_settings(**FUSION, fusion={"split": split})))
    noise = torch.randn(4, 16)
    other = noise.clone()
    other[:, low:] += 1
    (image, coarse, detail), changed = generator(noise, None), generator(other, None)
    assert torch.equal(coarse, changed[1])
    assert not torch.equal(image, changed[0])
    assert not torch.equal(detail, changed[2])
    other = noise.clone()
    other[:, :low] += 1
    assert torch.equal(detail, generator(other, None)[2])


def test_coarser_detail_is_summed_as_haar_sums() -> None:
    """Of independent numbers of one variance it has that variance, as all normalised bands have."""
    generator = FusionGenerator(chain_of(tiny_settings(**FUSION, levels=2)))
    ones = torch.ones(1, 18, 8, 8)
    made = generator.blended(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 4, 4), ones).sub_images
    assert torch.equal(made[Band(2, "HL")], torch.full((1, 3, 4, 4), 2.0))
    assert torch.equal(made[Band(1, "HL")], torch.ones(1, 3, 8, 8))
    stacked = generator.stacked_high(made)
    assert stacked.shape == ones.shape
    assert torch.equal(stacked[:, :9], torch.full((1, 9, 8, 8), 2.0))


# -- lambda ----------------------------------------------------------------------------------------


class Rectified(LinearBlend):
    """lambda = relu(a), a = 0 at the start."""

    def forward(self, frequency: Tensor, conventional: Tensor) -> Tensor:
        return conventional + self.weight.relu() * (frequency - conventional)


class Squashed(LinearBlend):
    """lambda = sigmoid(a), a = -10 at the start."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.weight, -10.0)

    def forward(self, frequency: Tensor, conventional: Tensor) -> Tensor:
        return conventional + self.weight.sigmoid() * (frequency - conventional)

    def project(self) -> None:
        """Leave a as it is."""


def share_after(blend: LinearBlend, value: Callable[[Tensor], Tensor], steps: int = 200) -> float:
    """The share of the bands after a training by gradient descent whose best share is 1."""
    rng = torch.Generator().manual_seed(0)
    frequency, conventional = (torch.randn(8, 3, 8, 8, generator=rng) for _ in range(2))
    descent = torch.optim.SGD(blend.parameters(), lr=0.01)
    for _ in range(steps):
        descent.zero_grad()
        (blend(frequency, conventional) - frequency).square().mean().backward()
        descent.step()
        blend.project()
    return float(value(blend.weight.detach()))


def test_a_rectified_share_is_dead_at_zero_a_squashed_one_is_stuck_and_a_linear_one_is_free() -> None:
    assert share_after(Rectified(), torch.relu) == 0
    assert share_after(Squashed(), torch.sigmoid) < 1e-4
    assert share_after(LinearBlend(), lambda weight: weight) > 0.9


@pytest.mark.parametrize("kind", [Rectified, Squashed, LinearBlend])
def test_so_it_is_in_the_system_itself(kind: type[LinearBlend]) -> None:
    """Adam, which makes steps of one size of gradients of any size but 0, does not wake up what is dead."""
    stage = stage_of(**FAST)
    rectified = kind is Rectified
    stage.generator.blend.__class__ = kind
    if kind is Squashed:
        nn.init.constant_(stage.generator.blend.weight, -10.0)
    values = lambdas(stage, 25)
    if kind is Squashed:
        assert torch.tensor(values).sigmoid().max() < 1e-3
    else:
        assert (max(values) == 0) == rectified


def test_lambda_leaves_zero_and_stays_within_its_bounds() -> None:
    values = lambdas(stage_of(fusion={"lambda_learning_rate": 0.4}), 30)
    assert max(values) > 0.2
    assert 0 <= min(values) <= max(values) <= 1
    assert len({0.0, 1.0} & set(values)) > 0  # steps this large come to a bound, and no further


def test_the_auxiliary_loss_trains_the_bands_at_lambda_zero_and_fades_out() -> None:
    """Without it nothing reaches G_l and G_h while lambda is 0."""
    for share, moves in ((0.5, True), (0.0, False)):
        stage = stage_of(fusion={"lambda_learning_rate": 0, "auxiliary_share": share})
        before = {name: x.clone() for name, x in stage.generator.named_parameters()}
        stepped([stage], 2)
        changed = {name.split(".")[0] for name, x in stage.generator.named_parameters() if (x != before[name]).any()}
        assert changed == ({"image", "low", "high"} if moves else {"image"})
    settings = FusionSettings(fade_begin=0.2, fade_end=0.4, auxiliary_share=0.5)
    shares = [float(auxiliary_share(settings, torch.tensor(x))) for x in (0.0, 0.2, 0.3, 0.4, 1.0)]
    assert shares == pytest.approx([0.5, 0.5, 0.25, 0, 0], abs=1e-6)


# -- steps -----------------------------------------------------------------------------------------


def test_a_step_is_a_function_of_state_step_and_inputs() -> None:
    first, second = stage_of(**FAST, classes=2), stage_of(**FAST, classes=2)
    stepped([first], 3)
    second.load_state_dict(first.state_dict())
    labels = torch.arange(BATCH) % 2
    results = [s.step(3, pictures(s.settings, seed=9), labels, {}) for s in (first, second)]
    assert results[0].metrics == results[1].metrics
    state, other = first.state_dict(), second.state_dict()
    assert counters_of(state) == counters_of(other)
    assert all(torch.equal(x, tensors_of(other)[name]) for name, x in tensors_of(state).items())


def test_every_network_is_trained_and_averaged() -> None:
    stage = stage_of(**FAST, levels=2, classes=2)
    before = {name: x.clone() for name, x in tensors_of(stage.state_dict()).items()}
    metrics = stepped([stage], 2)[-1][0].metrics
    after = tensors_of(stage.state_dict())
    for part in ("generator.image", "generator.low", "generator.high", "generator.blend", "average.low"):
        assert any((after[name] != x).any() for name, x in before.items() if name.startswith(f"{part}.")), part
    for part in ("discriminator", "low.discriminator", "high.discriminator"):
        labels = f"{part}.embed.weight"  # projection of the label
        assert (after[labels] != before[labels]).any()
    assert metrics.keys() >= {"loss_d", "loss_d_low", "loss_d_high", "loss_g", "loss_g_low", "loss_g_high", "lambda"}


def test_a_recorded_step_is_the_step_to_the_bit() -> None:
    """As :mod:`tests.freqgan.runtime.test_graph_capture` has it for the other stages; lambda grows past its fade."""
    tape = Tape()
    settings = tiny_settings(batch=BATCH, **FUSION, fusion={"lambda_learning_rate": 0.1})
    plain, recorded = FusionStage(chain_of(settings)), FusionStage(chain_of(settings), capture=tape)
    results = [stepped([stage], WARM_UP + 4) for stage in (plain, recorded)]
    assert [result.metrics for (result,) in results[0]] == [result.metrics for (result,) in results[1]]
    assert results[0][-1][0].metrics["lambda"] > settings.fusion.fade_begin
    assert tape.replayed > 0
    other = tensors_of(recorded.state_dict())
    assert all(torch.equal(x, other[name]) for name, x in tensors_of(plain.state_dict()).items())


def test_nothing_moves_between_devices_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(batch=BATCH, **FUSION, classes=2)
    with other_device(monkeypatch):
        tape = Tape()
        stage = FusionStage(chain_of(settings, OTHER), capture=tape)
        for step in range(WARM_UP + 2):
            stage.step(step, pictures(settings, seed=step), torch.arange(BATCH) % 2, {})
        assert tape.recorded


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_equal_one_to_rounding_and_each_other_to_the_bit(count: int) -> None:
    """Every step begins with the state that one has come to."""
    one = stage_of(**FAST, classes=2)
    many = [stage_of(share, **FAST, classes=2) for share in thread_shares(count)]
    for step in range(3):
        for stage in many:
            stage.load_state_dict(
                {name: x.clone() for name, x in tensors_of(one.state_dict()).items()} | counters_of(one.state_dict())
            )
        (alone,), (first, *rest) = stepped([one], step + 1, step)[0], stepped(many, step + 1, step)[0]
        assert all(result.metrics == first.metrics for result in rest)
        ours, *others = (tensors_of(stage.state_dict()) for stage in many)
        assert all(torch.equal(x, other[name]) for name, x in ours.items() for other in others)
        assert_near(ours, tensors_of(one.state_dict()))
        for name in ("loss_d", "loss_d_low", "loss_g", "loss_g_high", "lambda"):
            assert first.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-3, abs=1e-5), name


def test_settings_name_the_share_of_the_noise() -> None:
    settings: ModelSettings = tiny_settings(**FUSION)
    assert settings.fusion.low_dimensions(settings.noise.dimensions) == 8
