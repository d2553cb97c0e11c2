from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from freqgan.companions.imported import import_companion
from freqgan.errors import InputError
from tests.support.commands import ROOT
from tests.support.companions import LINEAR, LinearCompanion, companion_of, companion_settings, stage_of, stage_step

MODULE = """
import torch
from freqgan.companions.protocol import Companion


class NoModule:
    pass


class Lacking(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def sample(self, noise, labels):
        return noise


class Numberless(Lacking):
    passes = 1

    def loss(self, images, labels, rng, progress):
        pass

    def prepare(self, images):
        pass


class Endless(Numberless):
    numbers, passes = 3, float("inf")


class Judged(Numberless):
    numbers, is_adversarial = 3, True


class Failing(Lacking):
    def __init__(self, settings):
        raise KeyError("width")


class Greedy(Lacking):
    def __init__(self, settings, width):
        super().__init__(settings)


class Abstract(Companion):
    numbers = 3


class Pair(Companion):
    numbers, passes = 3, 2

    def __init__(self, settings):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def sample(self, noise, labels):
        return self.gain * noise

    def loss(self, images, labels, rng, progress):
        return self.gain * images.mean(), {}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_companions.py").write_text(MODULE)
    (tmp_path / "broken_companions.py").write_text("import nothing_like_it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_companions"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:A", "module no_such_module of no_such_module:A cannot be imported"),
        ("broken_companions:A", "of broken_companions:A needs nothing_like_it, which is not there: pip install it"),
        ("own_companions:Lackin", r"has no class 'Lackin' \(did you mean Lacking"),
        ("own_companions:MODULE", "has no class 'MODULE'"),
        ("own_companions:NoModule", "is no class of torch.nn.Module; derive it from"),
        ("own_companions:torch", "is no class of torch.nn.Module"),
        ("own_companions:Lacking", r"has no loss\(\), prepare\(\); derive it from"),
        ("own_companions:Numberless", "has numbers = None, and it has to be a whole number above 0"),
        ("own_companions:Endless", "has passes = inf"),
        ("own_companions:Judged", "is_adversarial, and a class of your own is trained by its own loss"),
        ("own_companions:Failing", r"cannot be built from the settings \(KeyError: 'width'\)"),
        ("own_companions:Greedy", "its __init__ is called with the settings of the model alone"),
        ("own_companions:Abstract", "abstract method 'sample'|abstract method sample"),
    ],
)
def test_classes_that_are_no_companions(module: str, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_companion(path, companion_settings(path))


def test_a_loss_that_is_none(module: str) -> None:
    stage = stage_of(companion_settings(f"{module}:Pair", plan={"bands": "none"}))
    with pytest.raises(
        InputError, match=r"own_companions:Pair.loss returned a tuple; have it return .*CompanionLoss\(value"
    ):
        stage_step(stage, 0)


def test_a_pool_for_a_class_of_one_pass() -> None:
    with pytest.raises(InputError, match="needs no pool"):
        companion_of(LINEAR, {"pool": {"size": 8}})


def test_a_class_is_built_from_the_settings_with_weights_of_the_seed() -> None:
    first, again, other = (companion_of(LINEAR, seed=seed) for seed in (0, 0, 1))
    assert isinstance(first, LinearCompanion)
    assert torch.equal(first.map.weight, again.get_parameter("map.weight"))
    assert not torch.equal(first.map.weight, other.get_parameter("map.weight"))


def test_its_metrics_are_among_those_of_the_stage() -> None:
    metrics = stage_step(stage_of(companion_settings(LINEAR)), 0)
    assert metrics["companion_half"] == pytest.approx(metrics["companion_loss"] / 2)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
@pytest.mark.parametrize("classes", [0, 3])
def test_the_example_with_a_network_of_diffusers_trains(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))
    settings = companion_settings("diffusers_unet:DiffusersUNet", classes=classes, plan={"bands": "none"})
    stage = stage_of(settings)
    losses = [stage_step(stage, step)["companion_loss"] for step in range(10)]
    assert losses[-1] < losses[0]
