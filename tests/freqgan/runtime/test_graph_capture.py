"""Steps that are recorded and replayed do what steps that are run do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.stages.host import build_chain, build_host
from cluster.stages.replicas import StageReplica
from freqgan.costing.operator_count import unit_statistics
from freqgan.errors import RunError
from freqgan.model.settings import ModelSettings
from freqgan.runtime.graph_capture import SIGNATURES, WARM_UP, CapturedFunction, CudaGraphs
from freqgan.tensor_dicts import tensors_of
from freqgan.training.band_gan import BandGan
from tests.support.models import TINY, TinyRun, tiny_settings
from tests.support.other_device import OTHER, other_device
from tests.support.runs import tiny_run_settings
from tests.support.tape import Tape

SYSTEMS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "classes, approximate penalties, shifts": {
        "classes": 2, "loss": {"penalty": "noise"}, "augmentation": {"shift": 1},
    },
    "a ring": {"plan": {"cycles": 2}},
    "an ensemble, another wavelet": {"plan": {"low_gans": {1: 2}}, "transform": "dwt:db2"},
    "two levels, one network for the high bands, bfloat16": {
        "levels": 2, "plan": {"high_gans": {1: 1, 2: 1}}, "precision": "bfloat16",
    },
    "no bands": {"plan": {"bands": "none"}},
    "hinge": {"loss": {"kind": "hinge"}},
    "feedback as it is, a blend per band": {
        "feedback": {"lag": 1, "balance": False, "discriminator": TINY}, "image_stage": {"alpha": "per_band"},
    },
    "cosine bands, no feedback": {"transform": "dct", "feedback": {"weight": 0}},
    "Fourier bands": {"transform": "fft:meyer"},
    "a companion with a loss of its own": {"image_stage": {"companion": "vae", "vae": {"latent": 8}}},
}  # fmt: skip
LONG = (
    "as it comes", "an ensemble, another wavelet", "a ring", "no bands",
    "two levels, one network for the high bands, bfloat16",
    "feedback as it is, a blend per band", "cosine bands, no feedback", "Fourier bands",
    "a companion with a loss of its own",
)  # fmt: skip
STEPS = 2 * (WARM_UP + 1) + 4
"""Every second one with penalties: a kind of call that is recorded in its third and replayed from its fourth on."""


def settings_of(system: str) -> ModelSettings:
    """With schedules that move within so many steps."""
    changes = SYSTEMS[system]
    return tiny_settings(**{**changes, "images": STEPS * 4, "loss": {"penalty_interval": 2, **changes.get("loss", {})}})


@pytest.mark.parametrize("system", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in SYSTEMS])
def test_a_recorded_step_is_the_step_to_the_bit(system: str) -> None:
    settings = settings_of(system)
    tape = Tape()
    run, recorded = TinyRun(settings), TinyRun(settings, tape)
    for step in range(STEPS):
        made, metrics = run.step(step)
        made_again, metrics_again = recorded.step(step)
        assert metrics_again == metrics, step
        assert all(torch.equal(made_again[name], output) for name, output in made.items()), step
    for name, state in run.states().items():
        assert all(torch.equal(recorded.states()[name][key], tensor) for key, tensor in state.items()), name
    assert tape.replayed > tape.recorded > 0


def test_a_stage_set_back_goes_on_with_its_recordings() -> None:
    settings = tiny_settings()
    run, recorded = TinyRun(settings), TinyRun(settings, Tape())
    for step in range(WARM_UP + 2):
        run.step(step)
        recorded.step(step)
    for one in (run, recorded):
        for stage in one.stages:
            before = stage.state_dict()
            stage.load_state_dict(before | {name: tensor.clone() * 0.9 for name, tensor in tensors_of(before).items()})
            stage.scale_rate(0.5)
        one.step(WARM_UP + 2)
    for name, state in run.states().items():
        assert all(torch.equal(recorded.states()[name][key], tensor) for key, tensor in state.items()), name


@pytest.mark.parametrize(
    "system",
    [
        "classes, approximate penalties, shifts",
        pytest.param("as it comes", marks=pytest.mark.long),
        pytest.param("hinge", marks=pytest.mark.long),
    ],
)
def test_nothing_moves_between_devices_while_it_is_recorded(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(system)
    with other_device(monkeypatch):
        tape = Tape()
        run = TinyRun(settings, tape, OTHER)
        for step in range(2 * WARM_UP + 2):
            run.step(step)
        assert tape.recorded


def test_what_a_graph_cannot_do_is_noticed() -> None:
    other = torch.device("meta")
    for function in (
        lambda x: [x + float(x.sum())],
        lambda x: [x + torch.rand(3)],
        lambda x: [x.to(other)],
        lambda x: [x[x > 0]],
    ):
        called = CapturedFunction(function, Tape())
        for _ in range(WARM_UP):
            called(torch.ones(3))
        with pytest.raises(RuntimeError, match="not permitted"):
            called(torch.ones(3))


def test_numbers_of_python_stay_what_they_were() -> None:
    """So that the test of whole steps would see one: a recording that forgets is told from one that runs again."""
    factors = iter(range(1, 10))
    called = CapturedFunction(lambda x: [x * next(factors)], Tape())
    assert [float(called(torch.ones(1))[0]) for _ in range(5)] == [1, 2, 3, 3, 3]


def test_every_kind_of_call_has_its_recording_and_the_oldest_go() -> None:
    tape = Tape()

    def doubled(given: list[Tensor | None], *, more: bool) -> list[Tensor | None]:
        return [x if x is None or not more else x + x for x in given]

    called = CapturedFunction(doubled, tape)
    for number in range(WARM_UP + 2):
        two, three = torch.full((2,), number), torch.full((3,), number)
        for more, factor in ((False, 1), (True, 2)):
            assert torch.equal(_only(called([two], more=more)), two * factor)
            assert torch.equal(_only(called([three], more=more)), three * factor)
            assert torch.equal(_only(called([None, two], more=more)), two * factor)
    assert (tape.recorded, tape.replayed) == (6, 6)
    for size in range(4, 4 + SIGNATURES):
        called([torch.ones(size)], more=True)
    called([torch.full((2,), 0)], more=True)
    assert tape.replayed == 6  # forgotten meanwhile: it runs as it is again


def _only(made: list[Tensor | None]) -> Tensor:
    (tensor,) = [x for x in made if x is not None]
    return tensor


def test_results_outlast_the_next_call_where_that_is_asked_for() -> None:
    for keep in (True, False):
        called = CapturedFunction(lambda x: [x + 1], Tape(), keep=keep)
        for _ in range(WARM_UP):
            called(torch.zeros(1))
        first = called(torch.zeros(1))[0]
        called(torch.ones(1))
        assert float(first) == (1 if keep else 2)


def test_the_setting_has_no_effect_on_a_cpu_and_may_change_when_a_run_is_resumed(
    small_shards: Path, tmp_path: Path
) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, cuda_graphs=True, device="cpu")
    statistics = {name: tensor.numpy() for name, tensor in unit_statistics(settings).items()}
    stage = build_host(settings, StageReplica("LL1", 0, 1), build_chain(settings, statistics)).stage
    assert isinstance(stage, BandGan)
    assert stage.capture is None
    assert "cuda_graphs" not in settings.identity()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("system", SYSTEMS)
def test_cuda_graphs_do_what_a_gpu_does_without(system: str) -> None:
    """Step by step from the same state: a GPU adds in any order, and Adam makes whole steps of what rounding leaves."""
    settings, device = settings_of(system), torch.device("cuda")
    run, recorded = TinyRun(settings, None, device), TinyRun(settings, CudaGraphs(), device)
    for step in range(STEPS):
        for stage, other in zip(run.stages, recorded.stages, strict=True):
            state = other.state_dict()
            stage.load_state_dict(state | {name: tensor.clone() for name, tensor in tensors_of(state).items()})
        run.feedback = dict(recorded.feedback)
        made, metrics = run.step(step)
        made_again, metrics_again = recorded.step(step)
        for name, output in made.items():
            torch.testing.assert_close(made_again[name], output, rtol=1e-3, atol=1e-4)
        for name, values in metrics.items():
            assert metrics_again[name] == pytest.approx(values, rel=1e-2, abs=1e-3), (step, name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_that_cannot_be_recorded_says_what_to_set() -> None:
    called = CapturedFunction(lambda x: [x + float(x.sum())], CudaGraphs())
    for _ in range(WARM_UP):
        called(torch.ones(3, device="cuda"))
    with pytest.raises(RunError, match="set cuda_graphs=false"):
        called(torch.ones(3, device="cuda"))
