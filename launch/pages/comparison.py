"""What a comparison found: every number in ``results.md`` and ``results.json``, plots and grids in ``index.html``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from cluster.run.settings import RunSettings
from freqgan.metrics.catalogue import HIGH_IS_GOOD, accuracy_sentences
from launch.drawing.grids import encode_png
from launch.pages.curves import rendered

Values = Mapping[str, float | None]
PARTS = {"value": "learned alpha", "chain": "alpha = 1", "other": "alpha = 0"}
HEADLINE = (
    "learned.frechet",
    "learned_holdout.frechet",
    "learned.precision",
    "learned.recall",
    "cross_band_frechet",
    "critic_accuracy",
    "critic_accuracy.log_loss",
    "sliced_wasserstein",
    "feature_frechet",
    "packet_frechet",
    "spectrum_db",
    "neighbours.coverage",
    "neighbours.duplicates",
)
"""The metrics of the tables of medians and runs, as far as all runs were measured by them."""
INK = "#808080"
DOT = "#3b82c4"


@dataclass(frozen=True)
class RunScores:
    """One run: ``scores`` is {metric: {value, floor, ratio, chain, other}} as ``freqgan evaluate --json`` wrote it."""

    system: str
    seed: int
    settings: RunSettings
    cost: float
    scores: Mapping[str, Values]


def write_page(out: Path, runs: Sequence[RunScores], count: int) -> str:
    """Write all three files into ``out``; return a line that says where."""
    headline = headline_of(runs)
    (out / "results.json").write_text(
        json.dumps([{"system": r.system, "seed": r.seed, "cost": r.cost, "scores": r.scores} for r in runs], indent=1)
    )
    (out / "results.md").write_text(markdown(runs, count))
    environment = Environment(loader=PackageLoader("launch.pages"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("comparison.html").render(
        rows=median_rows(runs),
        headline=headline,
        accuracies=accuracy_sentences(runs[0].scores),
        high=HIGH_IS_GOOD,
        runs=[_run_facts(out, run) for run in runs],
        plots=[(name, _uri(encode_png(rendered(_plot(runs, name))))) for name in headline],
        images=runs[0].settings.images,
        count=count,
    )
    (out / "index.html").write_text(page)
    return f"{len(runs)} runs compared: {out}/results.md, {out}/index.html"


def headline_of(runs: Sequence[RunScores]) -> list[str]:
    """Return the metrics of HEADLINE that all ``runs`` were measured by: learned features may be left out."""
    return [name for name in HEADLINE if all(name in run.scores for run in runs)]


def markdown(runs: Sequence[RunScores], count: int) -> str:
    """Return the medians of every system and part, then every run."""
    headline = headline_of(runs)
    high = ", ".join(name for name in headline if name in HIGH_IS_GOOD)
    lines = [
        f"{runs[0].settings.images:,} images seen by every run; {count:,} images measured; low is good but for "
        f"{high}; 0.5 is perfect for critic_accuracy.",
        *accuracy_sentences(runs[0].scores),
        "",
        "## Medians",
        "",
        *_table(["system", "alpha", *headline], [[r.system, r.part, *r.shown] for r in median_rows(runs)]),
        "",
        "## Runs",
        "",
        *_table(
            ["run", "10^6 MACs / image", *headline],
            [
                [f"{r.system}-{r.seed}", f"{r.cost / 1e6:.1f}", *(_text(r.scores[name]["value"]) for name in headline)]
                for r in runs
            ],
        ),
        "",
        "## Every metric, learned alpha",
        "",
        *_table(
            ["metric", "floor", *(f"{r.system}-{r.seed}" for r in runs)],
            [
                [name, _text(floors["floor"]), *(_text(r.scores[name]["value"]) for r in runs)]
                for name, floors in runs[0].scores.items()
                if all(name in r.scores for r in runs)
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class MedianRow:
    """Medians over the seeds of one system and part, by metric of :func:`headline_of`, as texts."""

    system: str
    part: str
    shown: list[str]


def median_rows(runs: Sequence[RunScores]) -> list[MedianRow]:
    """Return real images first, then every system with each of its parts."""
    headline = headline_of(runs)
    rows = [MedianRow("real images", "-", [_text(runs[0].scores[name]["floor"]) for name in headline])]
    for system in dict.fromkeys(run.system for run in runs):
        own = [run for run in runs if run.system == system]
        for key, part in PARTS.items():
            if key in own[0].scores[headline[0]]:
                rows.append(MedianRow(system, part, [_text(_median(own, name, key)) for name in headline]))
    return rows


def _median(runs: Sequence[RunScores], metric: str, key: str) -> float | None:
    values = [value for run in runs if (value := run.scores[metric].get(key)) is not None]
    return median(values) if values else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows]]


def _plot(runs: Sequence[RunScores], metric: str) -> Figure:
    """Return a dot per run, a stroke at the median, a dotted line at the floor."""
    systems = list(dict.fromkeys(run.system for run in runs))
    figure = Figure(figsize=(3.4, 2.3), layout="constrained")
    panel: Any = figure.subplots()
    for place, system in enumerate(systems):
        values = [value for run in runs if run.system == system and (value := run.scores[metric]["value"]) is not None]
        panel.plot([place] * len(values), values, "o", color=DOT, markersize=5)
        panel.hlines(median(values), place - 0.25, place + 0.25, color=DOT, linewidth=1.5)
    floor = runs[0].scores[metric]["floor"]
    if floor is not None:
        panel.axhline(floor, color=INK, linestyle=":", linewidth=1)
    panel.set_xticks(range(len(systems)), systems, fontsize=7)
    panel.set_xlim(-0.5, len(systems) - 0.5)
    panel.set_ylim(bottom=0)
    panel.tick_params(colors=INK, labelsize=7)
    for spine in panel.spines.values():
        spine.set_color(INK)
    return figure


def _run_facts(out: Path, run: RunScores) -> dict[str, Any]:
    grids = sorted((out / f"{run.system}-{run.seed}" / "samples").glob("*.png"))
    return {
        "name": f"{run.system}-{run.seed}",
        "cost": f"{run.cost / 1e6:.1f}",
        "grid": _uri(grids[-1].read_bytes()) if grids else "",
    }


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
