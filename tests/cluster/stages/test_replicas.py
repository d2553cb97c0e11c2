"""Replicas of one band: R of them with B / R images each do what one with B does, and stay equal to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.stages.process_group import FormedGroup, GroupBrokenError
from cluster.training.train import train as train_run
from freqgan.errors import InputError
from freqgan.runtime.data_parallel import ReplicaContext
from freqgan.tensor_dicts import tensors_of
from freqgan.training.band_gan import BandGan
from freqgan.training.rollback import DivergenceGuard
from freqgan.training.stage import Feedback, StepResult
from tests.campaigns.chaos import killing
from tests.campaigns.chaos.processes import listening
from tests.support.group_members import Members
from tests.support.models import chain_of, pictures, tiny_settings
from tests.support.runs import Events, tiny_run_settings, trained
from tests.support.thread_replicas import at_once, thread_shares

BATCH, STEPS = 8, 5
RELATIVE, ABSOLUTE = 2e-4, 2e-5
"""How far replicas may be from one after five steps: sums of gradients in another order, then Adam."""
FREE = "judge.bias"
"""Relativistic losses do not depend on it: Adam makes steps of full size of what rounding leaves of its gradient."""


def replicas_of(count: int, changes: Mapping[str, Any], name: str) -> list[BandGan]:
    """``count`` replicas of the GAN ``name``, or one as it is without any."""
    settings = tiny_settings(batch=BATCH, **changes)
    chain = chain_of(settings)
    return [BandGan(chain, chain.plan.gan(name), share) for share in thread_shares(count)]


def _about(what: str) -> Callable[[str], str]:
    return lambda message: f"{what}: {message}"


def train(gans: Sequence[BandGan]) -> tuple[Tensor, dict[str, float]]:
    """A few steps with feedback that comes one step later; the whole batch's last output, and its metrics."""
    settings, gan = gans[0].settings, gans[0].gan
    labels = torch.arange(BATCH) % max(1, settings.classes)
    rng = torch.Generator().manual_seed(5)
    parts: list[Tensor] = []
    before: dict[str, Tensor] = {}
    results: list[StepResult] = []
    nobody: list[Feedback | None] = [None] * len(gans)

    def stepped(gan: BandGan, step: int, outputs: dict[str, Tensor], told: Feedback | None) -> Callable[[], StepResult]:
        return lambda: gan.step(step, pictures(settings, seed=100 + step), labels, outputs, told)

    for step in range(STEPS):
        outputs = {
            other.name: torch.randn(BATCH, 3, *gans[0].chain.band_size(other.level), generator=rng)
            for other in gans[0].chain.plan.sources(gan)
        }
        gradient = torch.randn(BATCH, 3, *gans[0].chain.band_size(gan.level), generator=rng)
        told = [Feedback(step - 1, labels, before, part, gradient) for part in parts] or nobody
        results = at_once([stepped(g, step, outputs, t) for g, t in zip(gans, told, strict=True)])
        before, parts = outputs, [result.output for result in results if result.output is not None]
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
    expected = tensors_of(one[0].state_dict())
    first, *others = (tensors_of(gan.state_dict()) for gan in many)
    for key, tensor in first.items():
        assert all(torch.equal(tensor, other[key]) for other in others), key
        if key.endswith(FREE):
            continue
        torch.testing.assert_close(tensor, expected[key], rtol=RELATIVE, atol=ABSOLUTE, msg=_about(key))
    for key in ("loss_d", "loss_g", "feedback"):
        assert their_metrics[key] == pytest.approx(metrics[key], rel=1e-3, abs=1e-5), key


def test_replicas_that_diverge_are_set_back_together() -> None:
    gans = replicas_of(2, {}, "LL1")
    guards = [DivergenceGuard(gan, gan.settings.health) for gan in gans]
    with torch.no_grad():
        next(gans[1].trainer.generator.parameters()).fill_(float("nan"))  # in one of them alone
    images, labels = pictures(gans[0].settings), torch.zeros(BATCH, dtype=torch.int64)

    def guarded(gan: BandGan, guard: DivergenceGuard) -> Callable[[], StepResult]:
        return lambda: guard.run(1, lambda: gan.step(1, images, labels, {}))

    results = at_once([guarded(gan, guard) for gan, guard in zip(gans, guards, strict=True)])
    assert [result.metrics["set_back_diverged_to"] for result in results] == [0, 0]
    assert [guard.setbacks for guard in guards] == [1, 1]
    first, second = (tensors_of(gan.state_dict()) for gan in gans)
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_rows() -> None:
    shares = [ReplicaContext(i, 4) for i in range(4)]
    assert [share.rows(8) for share in shares] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert [share.count_within(5, 8) for share in shares] == [2, 2, 1, 0]
    with pytest.raises(InputError, match="a batch of 6 images cannot be cut into 4 equal parts"):
        shares[0].rows(6)


# -- processes ----------------------------------------------------------------------------------------


def _given(numbers: Tensor, index: int) -> tuple[Tensor]:
    return (numbers,)


@pytest.fixture(scope="module")
def members() -> Iterator[Members]:
    group = Members(3)
    yield group
    group.close()


def test_a_group_listens_on_its_own_address_alone(members: Members) -> None:
    members.form(1)
    found = listening(process.pid for process in members.processes)
    assert {place.partition(":")[0] for place in found} == {"0100007F"}


def test_a_group_means_gathers_breaks_and_forms_anew(members: Members) -> None:
    assert members.form(1) == [None] * 3
    pair = [(torch.tensor([float(i), 10.0 * i]), torch.tensor(i, dtype=torch.float64)) for i in range(3)]
    for first, second in members.all("mean", lambda i: (pair[i],)):
        assert first.tolist() == [1.0, 10.0]
        assert (second.item(), second.dtype) == (1.0, torch.float64)
    for parts in members.all("gather", lambda i: (torch.full((2,), i),)):
        assert torch.cat(parts).tolist() == [0, 0, 1, 1, 2, 2]
    for victim, how in ((2, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)):
        os.kill(members.processes[victim].pid, how)
        broken = members.all("mean", lambda i: (pair[i],), but=victim)
        assert [type(error) for error in broken] == [GroupBrokenError] * 2
        assert members.all("mean", lambda i: (pair[i],), but=victim)[0].args[0].endswith("was not formed anew yet")
        members.processes[victim].kill()
        members.start(victim)
        members.outboxes[victim].get(timeout=120)
        assert members.form(2 + victim) == [None] * 3
        assert members.all("mean", lambda i: (pair[i],))[1][0].tolist() == [1.0, 10.0]


def test_rows_that_are_no_multiple_of_the_workers_count_once_each(members: Members) -> None:
    members.form(1)
    for batch in (3, 8, 64):
        numbers = torch.arange(float(batch)).square()
        for mean in members.all("mean_of_rows", partial(_given, numbers)):
            torch.testing.assert_close(mean, numbers.mean())
    parts = [FormedGroup(index, 3, torch.device("cpu"), 8).rows(8) for index in range(3)]
    assert parts == [slice(0, 2), slice(2, 5), slice(5, 8)]
    with pytest.raises(InputError, match=r"workers.max: 9 workers and a batch of 8 images: give at most 8"):
        FormedGroup(0, 9, torch.device("cpu"), 8)


# -- in Ray -------------------------------------------------------------------------------------------


def replicated(run: Path, data: Path, **changes: Any) -> RunSettings:
    replicas = {"HL1": 2, "LL1": 2}
    return tiny_run_settings(
        run, data, executor="ray", max_steps=12, checkpoint_every=4, snapshot_every=3, replicas=replicas,
        replica_timeout_s=5.0, plan={"bands": ["LL1", "HL1"]}, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(small_shards: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Checkpoint:
    """The last checkpoint of a run with replicas to which nothing happened."""
    run = tmp_path_factory.mktemp("replicas") / "run"
    trained(replicated(run, small_shards, max_failures=0))
    return find_checkpoint(str(run))


def test_a_run_with_replicas_is_one_without_but_for_rounding(
    undisturbed: Checkpoint, small_shards: Path, tmp_path: Path
) -> None:
    """And its checkpoints are the same files, so that a run may go on with another number of replicas."""
    run = undisturbed.settings.run
    settings = undisturbed.settings.model_copy(
        update={"run": str(tmp_path / "one"), "executor": "inline", "max_steps": 4}
    )
    train_run(settings, Events())  # of few steps: what rounding leaves grows from step to step, as in any GAN
    theirs, states = find_checkpoint(settings.run).states(), find_checkpoint(run, step=4).states()
    assert {name: set(tensors) for name, tensors in theirs.items()} == {n: set(t) for n, t in states.items()}
    for stage, tensors in states.items():
        for name, tensor in tensors.items():
            if not name.endswith(FREE):
                about = _about(f"{stage} {name}")
                torch.testing.assert_close(tensor, theirs[stage][name], rtol=RELATIVE, atol=5 * ABSOLUTE, msg=about)
    more = {"replicas": {"HL1": 2}, "max_steps": 6}
    _, events, _ = trained(replicated(tmp_path / "one", small_shards, max_failures=0).model_copy(update=more))
    assert (events.first_step, find_checkpoint(settings.run).step) == (4, 6)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["HL1@1", "LL1"])
def test_a_killed_replica_is_replaced_and_its_group_forms_anew(
    victim: str, undisturbed: Checkpoint, small_shards: Path, tmp_path: Path
) -> None:
    with killing({7: [victim]}) as replaced:
        _, events, digest = trained(replicated(tmp_path / "run", small_shards))
    assert replaced == {victim}
    assert digest == undisturbed.digest()
    (recovery,) = events.recoveries
    assert (recovery.stages, recovery.decision) == ((victim,), "replay")


@pytest.mark.long
def test_a_replica_that_hangs_is_ended_by_the_timeout_of_its_group(
    undisturbed: Checkpoint, small_shards: Path, tmp_path: Path
) -> None:
    with killing({5: ["HL1"]}, signal.SIGSTOP) as replaced:
        _, _, digest = trained(replicated(tmp_path / "run", small_shards))
    assert replaced == {"HL1"}
    assert digest == undisturbed.digest()
