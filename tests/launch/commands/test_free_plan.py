"""``freqgan plan`` for runs at a free pace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Outcome, refused, run_command
from tests.support.mixtures import FLOW_OVERRIDES

MODEL = ("smoke", "data=x", *FLOW_OVERRIDES, "pace=free", "images=2_000_000_000")
PLACES = """
berlin: {nodes: 1xH100, price: 2.5}
oregon: {nodes: '2*1xT4:spot', price: 0.2, available: 0.8, interruptions: 0.05}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    path = tmp_path / "places.yaml"
    path.write_text(PLACES)
    return path


def plan(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    outcome = run_command(capsys, "plan", *MODEL, *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def test_every_component_has_a_place_and_a_cost(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path
) -> None:
    outcome = plan(capsys, "--places", places, "stage_images.LL1=4_000_000_000", "--out", tmp_path / "plan")
    for words in ("2 components at a free pace", "4,000,000,000", "done: after ", "no plan is done before ", "cost: "):
        assert words in outcome.out
    assert "in time" not in outcome.out
    written = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert [part["name"] for part in written["components"]] == ["LL1", "HL-LH-HH1"]
    assert written["cost"] == pytest.approx(sum(part["cost"] for part in written["components"]))
    assert written["cost"] == pytest.approx(sum(written["cost_by_place"].values()))
    assert written["end_s"] == max(part["end_s"] for part in written["components"])
    assert written["earliest_s"] <= written["end_s"]
    assert written["deadline_s"] is None


def test_a_later_deadline_is_never_dearer(capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    plan(capsys, "--places", places, "--out", first)
    hours = json.loads((first / "plan.json").read_text())["end_s"] / 3600
    costs = []
    for factor in (0.1, 1.01, 3, 30):
        outcome = plan(capsys, "--places", places, "--done-by", f"{factor * hours:.3f}h", "--out", tmp_path / "plan")
        written = json.loads((tmp_path / "plan" / "plan.json").read_text())
        assert written["in_time"] == (factor > 1)
        assert ("in time: yes" if factor > 1 else "in time: no, ") in outcome.out
        costs.append(written["cost"])
    assert costs[1] >= costs[2] >= costs[3] > 0
    assert "oregon: only=LL1,HL-LH-HH1" in outcome.out


def test_a_picture_of_paces(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "plan"
    plan(capsys, "--nodes", "8xH100", "--simulate", "1..2", "--beside", "smoke", "--out", out)
    points = json.loads((out / "simulation.json").read_text())
    assert {point["way"] for point in points} == {"apart", "data-parallel", "pipeline"}
    assert {(point["link_gbit"], point["latency_s"]) for point in points} == {
        (gbit, latency_s) for gbit in (1, 10, 100) for latency_s in (0.0005, 0.05)
    }
    assert all(point["images_per_s"] > 0 for point in points)
    apart = [point["images_per_s"] for point in points if point["way"] == "apart" and point["link_gbit"] == 100]
    assert apart[1] > 1.2 * apart[0]
    assert (out / "simulation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--places", "none.yaml"], "none.yaml"),
        (["--nodes", "1xT4", "--places", "PLACES"], "both say which machines there are"),
        (["--nodes", "1xT4", "--done-by", "Monday"], "give hours (36h), days (3d)"),
        (["--nodes", "1xT4", "--done-by", "2020-01-01"], "hours from now: give a time within 100 years"),
        (["--nodes", "1xT4", "--beside", "smoke"], "--beside is drawn by --simulate"),
        (["--nodes", "1xT4", "--beside", "none", "--simulate", "1..2", "--out", "OUT"], "no preset or settings file"),
        (["--nodes", "1xT4", "--simulate", "1..2"], "give --out FOLDER"),
        (["--nodes", "1xT4", "only=LL2"], "no stage is called 'LL2'"),
        (["--nodes", "1xT4", "replicas.LL1=2"], "no place can train LL1"),
        (["pace=together", "--done-by", "3d"], "--done-by: all stages of a run with pace=together train in one"),
        (["pace=together", "--places", "PLACES"], "--places: all stages of a run with pace=together"),
    ],
)
def test_plans_of_components_are_refused(
    capsys: pytest.CaptureFixture[str], places: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    texts = [text.replace("PLACES", str(places)).replace("OUT", str(tmp_path / "out")) for text in arguments]
    assert message in refused(run_command(capsys, "plan", *MODEL, *texts))
