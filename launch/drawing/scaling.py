"""The pictures of ``freqgan plan --simulate``: images per second over devices, and what failures take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

COLOURS = {False: "#3b82c4", True: "#d9822b"}
PACE_COLOURS = {"apart": "#3b82c4", "data-parallel": "#d9822b", "pipeline": "#2f9e6e"}
PACE_LABELS = {
    "apart": "experts apart, each at its own pace",
    "data-parallel": "the same experts, data-parallel",
    "pipeline": "pipeline of --beside, with a window",
}


@dataclass(frozen=True)
class ScalingPoint:
    """One simulated number of devices, and how many of them the plan uses; ``grown``: the batch grows with them.

    ``seconds_per_failure``: what the death of one device takes from the whole run.
    """

    devices: int
    used: int
    batch: int
    images_per_s: float
    seconds_per_failure: float
    grown: bool

    def lost(self, failures_per_hour: float) -> float:
        """Return the share of the time that is lost at so many failures per device and hour."""
        ratio = failures_per_hour / 3600 * self.used * self.seconds_per_failure
        return ratio / (1 + ratio)


@dataclass(frozen=True)
class PacePoint:
    """Images a second of one way to train on so many devices, over links of one width and latency.

    ``way``: one of :data:`PACE_LABELS`; no images a second where its networks do not fit into the devices.
    """

    way: str
    link_gbit: float
    latency_s: float
    devices: int
    batch: int
    images_per_s: float


def paces_plot(points: Sequence[PacePoint], accelerator: str) -> bytes:
    """Return a PNG: throughput over devices, a column of panels for each link and a row for each latency."""
    links, latencies = (sorted({getattr(point, key) for point in points}) for key in ("link_gbit", "latency_s"))
    figure = Figure(figsize=(3.6 * len(links), 3.3 * len(latencies) + 0.4), layout="constrained")
    panels = figure.subplots(len(latencies), len(links), sharex=True, sharey=True, squeeze=False)
    for row, latency_s in zip(panels, latencies, strict=True):
        for panel, link in zip(row, links, strict=True):
            _draw_paces(panel, [p for p in points if (p.link_gbit, p.latency_s) == (link, latency_s)])
            panel.set_title(f"{link:g} Gbit/s, {1e3 * latency_s:g} ms", fontsize=10, loc="left")
        row[0].set_ylabel("images per second")
    for panel in panels[-1]:
        panel.set_xlabel(f"{accelerator} devices, 8 in a node")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return _png(figure)


def _draw_paces(panel: Any, points: Sequence[PacePoint]) -> None:
    for way in dict.fromkeys(point.way for point in points):
        series = [point for point in points if point.way == way and point.images_per_s]
        rates = [point.images_per_s for point in series]
        devices = [point.devices for point in series]
        panel.plot(devices, rates, color=PACE_COLOURS[way], marker="o", ms=3, label=PACE_LABELS[way])
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def scaling_plot(points: Sequence[ScalingPoint], accelerator: str, failures_per_hour: float) -> bytes:
    """Return a PNG: throughput on the left, lost throughput on the right."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    speed, loss = figure.subplots(1, 2)
    for grown in (False, True):
        series = [point for point in points if point.grown == grown]
        devices = [point.devices for point in series]
        batch = f"batch {series[0].batch}" if not grown else "batch grown with the devices"
        speed.plot(devices, [p.images_per_s for p in series], color=COLOURS[grown], marker="o", ms=3, label=batch)
        loss.plot(
            devices,
            [100 * p.lost(failures_per_hour) for p in series],
            color=COLOURS[grown],
            marker="o",
            ms=3,
            label=batch,
        )
    for panel, title, unit in (
        (speed, "Throughput", "images per second"),
        (loss, f"Lost to failures, {failures_per_hour:g} per device and hour", "percent of the time"),
    ):
        panel.set_xscale("log", base=2)
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel(f"{accelerator} devices, 8 in a node")
        panel.set_ylabel(unit)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    speed.set_yscale("log")
    loss.set_ylim(bottom=0)
    return _png(figure)
