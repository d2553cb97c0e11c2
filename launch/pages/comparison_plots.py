"""Plots of a comparison: every metric by system, and the curves of flow experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from freqgan.metrics.catalogue import LEARNED_FRECHET, LEARNED_HOLDOUT
from launch.pages.run_scores import RunScores

INK = "#808080"
DOT = "#3b82c4"


def metric_plot(runs: Sequence[RunScores], metric: str) -> Figure:
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
    _colour(panel)
    return figure


def curve_plots(runs: Sequence[RunScores]) -> dict[str, Figure]:
    """Return a figure for each kind of curve that was measured, by what it shows."""
    kinds = {"evaluations": "by passes through the network", "condition_noise": "by noise on the bands that are seen"}
    lines_by_text = {text: _curve_lines(runs, kind) for kind, text in kinds.items()}
    return {
        text: _curve_figure(lines, log=text == kinds["evaluations"]) for text, lines in lines_by_text.items() if lines
    }


def _curve_lines(runs: Sequence[RunScores], kind: str) -> dict[tuple[str, str], dict[float, float]]:
    """Return {(system, metric): {point: median over the runs}} of the learned distances."""
    lines: dict[tuple[str, str], dict[float, float]] = {}
    for system in dict.fromkeys(run.system for run in runs):
        own = [run.curves for run in runs if run.system == system and run.curves is not None]
        for metric in (LEARNED_FRECHET, f"{LEARNED_HOLDOUT}.frechet"):
            points = own[0].get(metric, {}).get(kind, {}) if own else {}
            if points:
                values = {float(point): median(c[metric][kind][point] for c in own) for point in points}
                lines[system, metric] = values
    return lines


def _curve_figure(lines: Mapping[tuple[str, str], Mapping[float, float]], *, log: bool) -> Figure:
    """Return a line per system: whole by ``learned``, dashed by ``learned_holdout``."""
    figure = Figure(figsize=(3.4, 2.3), layout="constrained")
    panel: Any = figure.subplots()
    systems = list(dict.fromkeys(system for system, _ in lines))
    for (system, metric), values in lines.items():
        tuned = metric == LEARNED_FRECHET
        panel.plot(
            list(values), list(values.values()), "o-" if tuned else "o--", color=f"C{systems.index(system)}",
            markersize=3, linewidth=1.1, label=system if tuned else None,
        )  # fmt: skip
    if log:
        panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.legend(fontsize=6, frameon=False, labelcolor=INK)
    _colour(panel)
    return figure


def _colour(panel: Any) -> None:
    panel.tick_params(which="both", colors=INK, labelsize=7)
    for spine in panel.spines.values():
        spine.set_color(INK)
