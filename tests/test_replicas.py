"""Replicas of one band: R of them with B / R images each do what one with B does, and stay equal to the bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from freqgan.band_gan import BandGan, Feedback, StepResult
from freqgan.errors import InputError
from freqgan.guard import Guard
from freqgan.replication import Share
from tests.models import chain_of, pictures, tiny_settings

BATCH, STEPS = 8, 5
RELATIVE, ABSOLUTE = 2e-4, 2e-5
"""How far replicas may be from one after five steps: sums of gradients in another order, then Adam."""
FREE = "judge.bias"
"""Relativistic losses do not depend on it: Adam makes steps of full size of what rounding leaves of its gradient."""


class ThreadShare(Share):
    """Replicas as threads of one process that wait for each other."""

    def __init__(self, index: int, count: int, board: list[Sequence[Tensor]], barrier: threading.Barrier) -> None:
        super().__init__(index, count)
        self.board, self.barrier = board, barrier

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.board[self.index] = tensors
        self.barrier.wait(60)
        means = [torch.stack(list(same)).mean(0) for same in zip(*self.board, strict=True)]
        self.barrier.wait(60)
        return means


def replicas_of(count: int, changes: Mapping[str, Any], name: str) -> list[BandGan]:
    """``count`` replicas of the GAN ``name``, or one as it is without any."""
    settings = tiny_settings(batch=BATCH, **changes)
    board: list[Sequence[Tensor]] = [()] * count
    barrier = threading.Barrier(count)
    shares = [ThreadShare(i, count, board, barrier) if count > 1 else Share() for i in range(count)]
    chain = chain_of(settings)
    return [BandGan(chain, chain.plan.gan(name), share) for share in shares]


def at_once(actions: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(actions)) as pool:
        futures = [pool.submit(action) for action in actions]
        return [future.result() for future in futures]


def train(gans: Sequence[BandGan]) -> tuple[Tensor, dict[str, float]]:
    """A few steps with feedback that comes one step later; the whole batch's last output, and its metrics."""
    settings, gan = gans[0].settings, gans[0].gan
    labels = torch.arange(BATCH) % max(1, settings.classes)
    rng = torch.Generator().manual_seed(5)
    parts: list[Tensor] = []
    before: dict[str, Tensor] = {}
    results: list[StepResult] = []

    def stepped(gan: BandGan, step: int, outputs: dict[str, Tensor], told: Feedback | None) -> Callable[[], StepResult]:
        return lambda: gan.step(step, pictures(settings, seed=100 + step), labels, outputs, told)

    for step in range(STEPS):
        outputs = {
            other.name: torch.randn(BATCH, 3, *(gans[0].chain.band_side(other.level),) * 2, generator=rng)
            for other in gans[0].chain.plan.sources(gan)
        }
        gradient = torch.randn(BATCH, 3, *(gans[0].chain.band_side(gan.level),) * 2, generator=rng)
        told = [Feedback(step - 1, labels, before, part, gradient) for part in parts] or [None] * len(gans)
        results = at_once([stepped(g, step, outputs, t) for g, t in zip(gans, told, strict=True)])
        before, parts = outputs, [result.output for result in results]
    assert all(result.metrics == results[0].metrics for result in results)
    return torch.cat(parts), results[0].metrics


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("LL1", {}),
        ("HL1", {"classes": 3, "teacher_forcing": {"start": 0.6, "end": 0.6}}),
        ("HL1", {"feedback": {"balance": False, "lag": 1}, "loss": {"penalty": "noise", "penalty_interval": 1}}),
        ("LL1", {"levels": 2, "plan": {"low_gans": {2: 2}}, "teacher_forcing": {"start": 0.8, "end": 0.8}}),
        ("HH1", {"plan": {"cycles": 2}, "loss": {"kind": "hinge"}}),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [2, 4])
def test_replicas_equal_one_and_each_other(name: str, changes: dict[str, Any], count: int) -> None:
    one, many = replicas_of(1, changes, name), replicas_of(count, changes, name)
    output, metrics = train(one)
    theirs, their_metrics = train(many)
    torch.testing.assert_close(theirs, output, rtol=RELATIVE, atol=50 * ABSOLUTE)
    expected = one[0].tensors()
    for key, tensor in many[0].tensors().items():
        assert all(torch.equal(tensor, other.tensors()[key]) for other in many[1:]), key
        if key.endswith(FREE):
            continue
        torch.testing.assert_close(
            tensor, expected[key], rtol=RELATIVE, atol=ABSOLUTE, msg=lambda m, k=key: f"{k}: {m}"
        )
    for key in ("loss_d", "loss_g", "feedback"):
        assert their_metrics[key] == pytest.approx(metrics[key], rel=1e-3, abs=1e-5), key


def test_replicas_that_diverge_are_set_back_together() -> None:
    gans = replicas_of(2, {}, "LL1")
    guards = [Guard(gan, gan.settings.health) for gan in gans]
    with torch.no_grad():
        next(gans[1].contest.generator.parameters()).fill_(float("nan"))  # in one of them alone
    images, labels = pictures(gans[0].settings), torch.zeros(BATCH, dtype=torch.int64)

    def guarded(gan: BandGan, guard: Guard) -> Callable[[], StepResult]:
        return lambda: guard.run(1, lambda: gan.step(1, images, labels, {}))

    results = at_once([guarded(gan, guard) for gan, guard in zip(gans, guards, strict=True)])
    assert [result.metrics["set_back_diverged_to"] for result in results] == [0, 0]
    assert [guard.setbacks for guard in guards] == [1, 1]
    assert all(torch.equal(tensor, gans[1].tensors()[key]) for key, tensor in gans[0].tensors().items())


def test_rows() -> None:
    shares = [Share(i, 4) for i in range(4)]
    assert [share.rows(8) for share in shares] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert [share.before(5, 8) for share in shares] == [2, 2, 1, 0]
    with pytest.raises(InputError, match="a batch of 6 images cannot be cut into 4 equal parts"):
        shares[0].rows(6)
