"""``system``: what comes with a word, and every combination that is refused, with names, numbers and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from freqgan.errors import InputError
from freqgan.model.plan import PlanSettings
from freqgan.model.stage_names import stage_names
from launch.settings.load import dump_settings, load_settings


def test_fusion_in_one_word(tmp_path: Path) -> None:
    """In a file and on the command line; it takes the place of a preset's plan, and of experts and packets."""
    file = tmp_path / "settings.yaml"
    file.write_text("preset: demo\nsystem: fusion\n")
    for settings in (load_settings(str(file), []), load_settings("demo", ["experts=flow", "system=fusion"])):
        assert (settings.system, settings.loss.kind, settings.plan) == ("fusion", "hinge", PlanSettings())
        assert stage_names(settings) == ["fusion"]
        assert settings.loss.gamma == load_settings("demo", []).loss.gamma
    (tmp_path / "all.yaml").write_text(dump_settings(settings))
    assert load_settings(str(tmp_path / "all.yaml"), []) == settings


def test_single_is_short_for_no_bands(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("preset: smoke\nsystem: single\n")
    assert load_settings("cifar10-flow", ["system=single"]).experts == {}
    expected = load_settings("smoke", ["plan.bands=none"])
    assert load_settings("smoke", ["system=single"]) == load_settings(str(file), []) == expected
    assert stage_names(expected) == ["image"]
    assert load_settings("smoke", ["system=bands"]) == load_settings("smoke", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["levels=0"], r"levels: 0 with system=fusion .* set levels=1"),
        (["transform=radial:2,3", "levels=2"], r"transform: radial:2,3 with system=fusion.*set transform=dwt:haar"),
        (["packets.1=1"], r"packets: \{1: 1\} with system=fusion.*leave it out"),
        (["experts=flow"], r"experts: default=flow with system=fusion.*system=bands"),
        (["experts.LL1=gan"], r"experts: LL1=gan with system=fusion"),
        (["plan.bands=none"], r"plan.bands: none with system=fusion.*leave it out, or set system=bands"),
        (["plan.high_gans.1=1"], r"plan.high_gans: \{1: 1\} with system=fusion"),
        (["plan.cycles=2"], r"plan.cycles: 2 with system=fusion"),
        (["image_stage.companion=vae"], r"image_stage.companion: vae with system=fusion.*leave it out"),
        (["image_stage=none"], r"image_stage.enabled: false with system=fusion"),
        (["loss.kind=relativistic"], r"loss.kind: relativistic with system=fusion.*set loss.kind=hinge"),
        (["pace=free"], r"pace: free with system=fusion"),
        (["exchange=none"], r"image_stage.enabled: false with system=fusion"),
        (["only=fusion"], r"only: fusion with system=fusion, which is one stage; leave it out"),
        (["stage_images.image=9"], r"stage_images: image with system=fusion, which is one stage; leave it out"),
        (["replicas.LL1=2"], r"replicas: LL1 with system=fusion.*workers.min and workers.max"),
        (["fusion.split=16"], r"fusion.split: 16 of noise.dimensions=16 .* from 1 to 15"),
        (["fusion.split=0"], r"fusion.split = 0: must be greater than or equal to 1"),
        (["noise.dimensions=1"], r"noise.dimensions: 1 cannot be split"),
        (["fusion.fade_begin=0.5"], r"fusion.fade_end: 0.4 is not above fusion.fade_begin=0.5"),
        (["fusion.auxiliary_share=2"], r"fusion.auxiliary_share = 2: must be less than or equal to 1"),
        (["workers.min=3", "workers.max=2"], r"workers.min: 3 is above workers.max=2"),
        (["workers.max=9"], r"workers.max: 9 workers and a batch of 8 images: give at most 8"),
        (["workers.min=2", "workers.max=2"], r"workers.min: 2 with executor=inline.*executor=ray"),
        (
            ["system=fission"],
            r"system = 'fission': must be 'bands' or 'fusion'; .*: fusion, single \(did you mean fusion",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings("smoke", ["system=fusion", *changes])


def test_workers_are_those_of_fusion() -> None:
    with pytest.raises(InputError, match=r"workers: min=1 and max=2 with system=bands.*replicas.<expert>"):
        load_settings("smoke", ["workers.max=2"])
