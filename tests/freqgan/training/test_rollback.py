"""A stage that diverges or collapses goes back alone, more slowly, and the same in every executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.execution.failure_policy import setbacks
from freqgan.errors import DivergedError
from freqgan.recipe.health import deviations, shows_collapse
from freqgan.recipe.settings import HealthSettings
from freqgan.tensor_dicts import counters_of, tensors_of, to_numbers
from freqgan.training.band_gan import BandGan
from freqgan.training.rollback import DivergenceGuard
from freqgan.training.stage import StepResult
from launch.run_folder.failures import recovery_text
from tests.support.models import TinyRun, pictures, tiny_settings
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR, UNSPARED

HEALTH = HealthSettings(every=2, patience=3, rate=0.25, most=2)


class Guarded:
    """The first GAN of a tiny model under a guard, without feedback."""

    def __init__(self, health: HealthSettings = HEALTH, **changes: Any) -> None:
        self.settings = tiny_settings(**changes)
        self.gan: BandGan = TinyRun(self.settings).gans[0]
        self.guard = DivergenceGuard(self.gan, health)

    def step(self, step: int) -> StepResult:
        images, labels = pictures(self.settings, seed=100 + step), torch.zeros(4, dtype=torch.int64)
        return self.guard.run(step, lambda: self.gan.step(step, images, labels, {}))

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in tensors_of(self.gan.state_dict()).items()}

    def poison(self) -> None:
        with torch.no_grad():
            next(self.gan.trainer.generator.parameters()).fill_(float("nan"))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_divergence_goes_back_to_the_last_good_state_and_repeats_the_step_more_slowly() -> None:
    ill, well = Guarded(), Guarded()
    for step in range(4):
        ill.step(step)
        if step == 1:
            good = ill.state()
    ill.poison()
    result = ill.step(5)  # the state after step 4 would be kept at step 4; the last good one is that before step 2
    assert result.metrics["set_back_diverged_to"] == 2
    well.gan.load_state_dict({**good, **counters_of(ill.guard.good_state)})
    well.gan.scale_rate(HEALTH.rate)
    assert "set_back_diverged_to" not in well.step(5).metrics
    assert same(ill.state(), well.state())
    assert not same(ill.state(), good)
    well.gan.load_state_dict({**good, **counters_of(ill.guard.good_state)})
    well.gan.scale_rate(1.0)
    well.step(5)
    assert not same(ill.state(), well.state())


def test_a_poisoned_state_is_never_kept_as_good() -> None:
    ill = Guarded()
    for step in range(2):
        ill.step(step)
    ill.poison()
    assert ill.step(2).metrics["set_back_diverged_to"] == 0  # at step 2 a state would be kept
    assert ill.guard.setbacks == 1


def test_the_budget_ends_it_with_the_remedy() -> None:
    ill = Guarded(HealthSettings(most=0))
    ill.poison()
    with pytest.raises(DivergedError, match=r"optimiser\.learning_rate") as caught:
        ill.step(1)
    assert caught.value.exit_code == 3


def test_samples_that_are_all_alike_are_a_collapse() -> None:
    ill = Guarded(HEALTH, optimiser={"learning_rate": 1e-12, "learning_rate_final": 1e-12})
    ill.step(0)
    with torch.no_grad():
        for parameter in ill.gan.trainer.generator.parameters():
            parameter.zero_()
    found = [ill.step(step).metrics for step in (1, 3, 5)]
    assert [m["sample_deviation"] < 0.02 * m["real_deviation"] for m in found] == [True] * 3
    assert [m.get("set_back_collapsed_to") for m in found] == [None, None, 0]
    assert ill.step(7).metrics["sample_deviation"] > 0.02
    assert ill.guard.signs == 0


def test_signs_of_collapse() -> None:
    health = HealthSettings()
    one = torch.randn(1, 3, 8, 8)
    real, alike, spread = torch.randn(16, 3, 8, 8), one.repeat(16, 1, 1, 1), torch.randn(16, 3, 8, 8)
    assert deviations(real, alike)["output_deviation"] > 0.5  # one picture varies: only samples tell
    assert shows_collapse({"loss_d": 0.5, **to_numbers(deviations(real, alike))}, health)
    assert not shows_collapse({"loss_d": 0.5, **to_numbers(deviations(real, spread))}, health)
    assert shows_collapse({"loss_d": 1e-6, **to_numbers(deviations(real, spread))}, health)
    constant = torch.zeros_like(real)
    assert not shows_collapse({"loss_d": 0.5, **to_numbers(deviations(constant, constant))}, health)  # as real ones are
    single = torch.randn(1, 3, 8, 8)
    # a batch of one tells nothing
    assert not shows_collapse(
        {"loss_d": 0.5, **to_numbers(deviations(single, single))}, health
    )  # a batch of one tells nothing


def test_state_before_there_were_guards_makes_itself_the_good_one() -> None:
    guarded = Guarded()
    for step in range(3):
        guarded.step(step)
    guarded.guard.load_state_dict({}, 3)
    assert guarded.guard.good_step == 3
    assert same(tensors_of(guarded.guard.good_state), guarded.state())


WILD: dict[str, Any] = {
    "optimiser": {"learning_rate": 1e14, "learning_rate_final": 1e14},
    "health": {"every": 2, "rate": 1e-16, "most": 3},
    "feedback": {"weight": 0.0},
}


def test_a_run_whose_rate_is_absurd_gets_over_it_and_says_so(small_shards: Path, tmp_path: Path) -> None:
    result, events, digest = trained(tiny_run_settings(tmp_path / "whole", small_shards, **WILD))
    assert result.reason == "done"
    assert {recovery.decision for recovery in events.recoveries} == {"set back"}
    text = recovery_text(events.recoveries[0])
    assert "not finite" in text
    assert "lower learning rate" in text
    noted = [recovery for record in events.records for recovery in setbacks(record.step, record.stages)]
    assert noted == events.recoveries
    run = tmp_path / "parts"
    for steps in (2, 4, 6):
        parts = trained(tiny_run_settings(run, small_shards, **(WILD | {"max_steps": steps})))
    assert parts[2] == digest


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.long
def test_ray_sets_the_same_stages_back(small_shards: Path, tmp_path: Path) -> None:
    wild = WILD | PAIR | UNSPARED
    _, there, digest = trained(tiny_run_settings(tmp_path / "inline", small_shards, **wild))
    settings = tiny_run_settings(tmp_path / "ray", small_shards, **wild, executor="ray")
    _, here, found = trained(settings)
    assert found == digest
    assert [(r.step, r.stages, r.from_step) for r in here.recoveries] == [
        (r.step, r.stages, r.from_step) for r in there.recoveries
    ]
