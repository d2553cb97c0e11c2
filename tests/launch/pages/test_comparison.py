"""Tables of a comparison: learned features stand first, where all runs were measured by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.run.settings import RunSettings
from launch.pages.comparison import HEADLINE, headline_of, markdown, median_rows, write_page
from launch.pages.run_scores import RunScores, Values

LEARNED = [name for name in HEADLINE if name.startswith("learned")]


def run_of(system: str, *, learned: bool) -> RunScores:
    names = [name for name in HEADLINE if learned or name not in LEARNED]
    scores: dict[str, Values] = {name: {"value": 4.0, "floor": 2.0, "ratio": 2.0} for name in names}
    if learned:
        scores["learned.label_accuracy"] = {"value": 0.7, "floor": 0.1, "ratio": 7.0}
    return RunScores(system, 0, RunSettings(), 1e6, scores)


def test_learned_features_stand_first_with_the_accuracy_of_their_network(tmp_path: Path) -> None:
    runs = [run_of("bands", learned=True), run_of("single", learned=True)]
    assert headline_of(runs) == list(HEADLINE)
    table = markdown(runs, 1_000)
    accuracy = "names the label of 70.0% of real images held out from it; guessing has 10.0% right."
    assert accuracy in table
    assert "| learned.label_accuracy | 0.1 | 0.7 | 0.7 |" in table
    assert len(median_rows(runs)[0].shown) == len(HEADLINE)
    write_page(tmp_path, runs, 1_000)
    page = (tmp_path / "index.html").read_text()
    assert accuracy in page
    assert "nobody tunes by" in page


@pytest.mark.parametrize("first", [True, False])
def test_runs_that_were_measured_before_there_were_learned_features(tmp_path: Path, first: bool) -> None:
    runs = [run_of("bands", learned=first), run_of("single", learned=not first)]
    assert headline_of(runs) == [name for name in HEADLINE if name not in LEARNED]
    assert "learned." not in markdown(runs, 1_000).partition("## Medians")[2]
    write_page(tmp_path, runs, 1_000)
    assert "learned.frechet" not in (tmp_path / "index.html").read_text()
