"""The picture of ``freqgan plan --simulate``: images per second over devices, and what failures take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

COLOURS = {False: "#3b82c4", True: "#d9822b"}


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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()
