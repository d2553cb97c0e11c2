"""Curves of a training over the images seen: losses of every stage, the blend weight, the speed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure  # used without pyplot, so no window system is looked for
from matplotlib.ticker import EngFormatter, ScalarFormatter
from PIL import Image

from cluster.evaluation.background import Evaluation
from cluster.execution.coordinator import BEGUN
from freqgan.metrics.catalogue import LEARNED_FRECHET
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE
from launch.run_folder.logs import Losses
from launch.run_folder.metrics import LAMBDA, MetricsLine, alphas_of

POINTS = 300
"""Longer histories are averaged into this many points, which also smooths them."""

INK = "#808080"  # readable on white and on black: the page decides which it is
COLOURS = {"loss_d": "#d9822b", "loss_g": "#3b82c4"}
NAMES = {"loss_d": "discriminator", "loss_g": "generator"}
FLOW_LOSS = "loss"
FUSION_PARTS = {"image": "", "low band": "_low", "high bands": "_high"}
"""What the discriminators of the jointly trained system judge, and what the names of their metrics end with."""
COMPANION_METRIC = "companion_"
EVENLY_MATCHED = 0.693  # ln 2: softplus of two equal logits
COLUMNS = 4
SCORES = (LEARNED_FRECHET, "learned.kernel", "learned.precision", "learned.recall", "learned_holdout.frechet")
TIMELINE_STEPS, TIMELINE_LEAST = 10, 2  # there are ten colours


def loss_curves(lines: Sequence[MetricsLine], relativistic: bool) -> Image.Image | None:
    """Return one small panel per GAN with the losses of D (orange) and G (blue), all on one scale, over images seen.

    None where there is no GAN.
    """
    judged = judged_parts(lines)
    if not judged:
        return None
    figure, panels = _stage_panels([part.title for part in judged])
    for panel, part in zip(panels, judged, strict=False):
        if relativistic:
            panel.axhline(EVENLY_MATCHED, color=INK, linewidth=0.6, linestyle=":")
        for key, colour in COLOURS.items():
            _draw(panel, lines, _values(lines, part.stage, f"{key}{part.suffix}"), color=colour, label=NAMES[key])
    _finish(panels, len(judged))
    panels[0].set_ylim(_lower_bound(lines, judged), _upper_bound(lines))
    panels[0].legend(fontsize=6, ncols=2, frameon=False, labelcolor=INK, loc="upper right")
    return rendered(figure)


class JudgedPart(NamedTuple):
    """What a discriminator judges: the stage, and what the names of its metrics end with, "" where it is the only one.

    ``title`` is that of its panel.
    """

    title: str
    stage: str
    suffix: str


def judged_parts(lines: Sequence[MetricsLine]) -> list[JudgedPart]:
    """Return every stage that has a discriminator; of the jointly trained system each of the three."""
    parts = [JudgedPart(stage, stage, "") for stage in _stages_with(lines, COLOURS)]
    if [part.stage for part in parts] != [FUSION_STAGE]:
        return parts
    return [JudgedPart(title, FUSION_STAGE, suffix) for title, suffix in FUSION_PARTS.items()]


def flow_loss_curves(lines: Sequence[MetricsLine], held_out: Losses = MappingProxyType({})) -> Image.Image | None:
    """Return one small panel per flow expert with its loss, all on one scale, over images seen; None without such.

    Losses on held-out images (orange) are beside those of training (blue).
    """
    stages = _stages_with(lines, (FLOW_LOSS,))
    if not stages:
        return None
    figure, panels = _stage_panels(stages)
    for panel, stage in zip(panels, stages, strict=False):
        _draw(panel, lines, _values(lines, stage, FLOW_LOSS), color=COLOURS["loss_g"])
        if points := held_out.get(stage):
            style = {"color": COLOURS["loss_d"], "marker": "o", "markersize": 2.5}
            panel.plot(*zip(*points, strict=True), linewidth=1.1, **style)
    _finish(panels, len(stages))
    numbers = [line.stages.get(stage, {}) for line in lines for stage in stages]
    losses = [own[FLOW_LOSS] for own in numbers if FLOW_LOSS in own]
    panels[0].set_ylim(0, 1.1 * float(np.quantile(losses, 0.998)))
    return rendered(figure)


def _stages_with(lines: Sequence[MetricsLine], keys: Iterable[str]) -> list[str]:
    """Return the stages that have one of the metrics ``keys``."""
    ends = (lines[0].stages, lines[-1].stages)  # a stage at its own pace may have come less far
    return [name for name in lines[-1].stages if any(key in stages.get(name, {}) for key in keys for stages in ends)]


def _stage_panels(stages: Sequence[str]) -> tuple[Figure, list[Any]]:
    """Return a figure and its panels, on one scale: those of ``stages``, and then those that fill the last row."""
    rows = -(-len(stages) // COLUMNS)
    figure = Figure(figsize=(10, 1.5 * rows + 0.4))
    _set_margins(figure, wspace=0.08, hspace=0.35)
    panels: list[Any] = list(figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    for panel, stage in zip(panels, stages, strict=False):
        _style(panel, stage)
    return figure, panels


def alpha_curve(lines: Sequence[MetricsLine]) -> Image.Image:
    """Return the blend weight, or one line per band."""
    figure, panel = _single_panel("alpha")
    names = list(alphas_of(lines[-1].stages.get(IMAGE_STAGE, {})))
    for name in names:
        _draw(panel, lines, _values(lines, IMAGE_STAGE, name), label=name)
    if len(names) > 1:
        panel.legend(fontsize=6, ncols=2, frameon=False, labelcolor=INK)
    return rendered(figure)


def lambda_curve(lines: Sequence[MetricsLine]) -> Image.Image:
    """Return lambda of the jointly trained system, and the share of its auxiliary samples, which falls as it grows."""
    figure, panel = _single_panel(LAMBDA)
    _draw(panel, lines, _values(lines, FUSION_STAGE, LAMBDA), color=COLOURS["loss_g"], label=LAMBDA)
    shares = _values(lines, FUSION_STAGE, "auxiliary_share")
    _draw(panel, lines, shares, color=INK, linestyle=":", label="auxiliary share")
    panel.legend(fontsize=6, ncols=2, frameon=False, labelcolor=INK)
    return rendered(figure)


def companion_curves(lines: Sequence[MetricsLine]) -> Image.Image | None:
    """Return one small panel per metric of a companion with a loss of its own, over images seen; None without such."""
    names = [name for name in lines[-1].stages.get(IMAGE_STAGE, {}) if name.startswith(COMPANION_METRIC)]
    if not names:
        return None
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(10, 1.5 * rows + 0.4))
    _set_margins(figure, left=0.05, wspace=0.3, hspace=0.35)
    panels: list[Any] = list(figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        values = _values(lines, IMAGE_STAGE, name)
        _style(panel, name.removeprefix(COMPANION_METRIC).replace("_", " "))
        _draw(panel, lines, values, color=COLOURS["loss_g"])
        low, high = np.nanquantile(values, [0.01, 0.99]) if len(values) > POINTS else (min(values), max(values))
        margin = 0.05 * (high - low) or 1.0
        panel.set_ylim(low - margin, high + margin)
    _finish(panels, len(names))
    return rendered(figure)


def speed_curve(lines: Sequence[MetricsLine]) -> Image.Image:
    """Return images per second."""
    figure, panel = _single_panel("images per second")
    _draw(panel, lines, [line.images_per_s for line in lines])
    panel.set_ylim(bottom=0)
    return rendered(figure)


def timeline(lines: Sequence[MetricsLine]) -> Image.Image | None:
    """Return what every stage did when: a bar per step, of the last steps; None where the times are not known.

    Every step has one colour in all rows, so that a step can be followed through the chain and the window be seen.
    """
    recent = _last_of_one_start(lines)
    if len(recent) < TIMELINE_LEAST:
        return None
    stages = list(recent[-1].stages)
    zero_s = min(numbers[BEGUN] for line in recent for numbers in line.stages.values())
    figure = Figure(figsize=(10, 0.26 * len(stages) + 0.9))
    _set_margins(figure, left=0.07, bottom=0.4 / figure.get_figheight())
    panel: Any = figure.subplots()
    _style(panel, f"steps {recent[0].step} to {recent[-1].step}")
    for line in recent:
        for row, stage in enumerate(stages):
            numbers = line.stages[stage]
            bar = [(numbers[BEGUN] - zero_s, numbers["seconds"])]
            panel.broken_barh(bar, (row - 0.42, 0.84), color=f"C{line.step % 10}", linewidth=0)
    panel.set_yticks(range(len(stages)), stages)
    panel.invert_yaxis()
    panel.set_axisbelow(True)
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.set_xlabel("seconds", color=INK, fontsize=8)
    return rendered(figure)


def _last_of_one_start(lines: Sequence[MetricsLine]) -> list[MetricsLine]:
    """Return the last few lines with times that go on from each other: a run that was resumed began to count anew."""
    latest: list[MetricsLine] = []
    for line in reversed(lines[-TIMELINE_STEPS:]):
        known = all(BEGUN in numbers and "seconds" in numbers for numbers in line.stages.values())
        if not known or (latest and any(n[BEGUN] > latest[-1].stages[s][BEGUN] for s, n in line.stages.items())):
            break
        latest.append(line)
    return latest[::-1]


def score_curves(evaluations: Sequence[Evaluation]) -> Image.Image:
    """Return one small panel per metric over images seen, with real images as a dotted line."""
    names = [name for name in evaluations[-1].scores if name in SCORES or "." not in name or name[:11] == "neighbours."]
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(10, 1.6 * rows + 0.4))
    _set_margins(figure, wspace=0.22, hspace=0.5)
    panels: list[Any] = list(figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat)
    images = [evaluation.images for evaluation in evaluations]
    for panel, name in zip(panels, names, strict=False):
        _style(panel, name.removeprefix("neighbours."))
        values = [evaluation.scores.get(name, {}).get("value") for evaluation in evaluations]
        floor = evaluations[-1].scores[name]["floor"]
        numbers = [np.nan if value is None else value for value in values]
        panel.plot(images, numbers, color=COLOURS["loss_g"], linewidth=1.1, marker="o", markersize=2.5)
        if floor is not None:
            panel.axhline(floor, color=INK, linewidth=0.8, linestyle=":")
        panel.set_ylim(bottom=0)
    _finish(panels, len(names))
    return rendered(figure)


def _finish(panels: Sequence[Any], used: int) -> None:
    """Hide panels that are not used, and give the lowest of every column its numbers, which only the last row has."""
    for panel in panels[used:]:
        panel.set_axis_off()
    for panel in panels[max(0, used - COLUMNS) : used]:
        panel.tick_params(labelbottom=True)


def _single_panel(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 2.6))
    _set_margins(figure, left=0.09, bottom=0.17)
    panel = figure.subplots()
    _style(panel, title)
    panel.set_xlabel("images seen", color=INK, fontsize=8)
    return figure, panel


def _set_margins(figure: Figure, left: float = 0.035, bottom: float = 0.04, **spaces: float) -> None:
    """Set margins by hand: finding them by measuring every label takes longer than drawing."""
    height_in = figure.get_figheight()
    figure.subplots_adjust(left, max(bottom, 0.3 / height_in), 0.975, 1 - 0.3 / height_in, **spaces)


def _values(lines: Sequence[MetricsLine], stage: str, key: str) -> list[float]:
    return [line.stages.get(stage, {}).get(key, np.nan) for line in lines]


def _draw(panel: Any, lines: Sequence[MetricsLine], values: Sequence[float], **style: str) -> None:
    """Draw a line over images seen; both are averaged over runs of lines so that POINTS are left."""
    images, numbers = np.array([line.images for line in lines], np.float64), np.array(values, np.float64)
    known = np.flatnonzero(np.isfinite(numbers)) if np.isnan(numbers).any() else np.arange(len(lines))
    parts = np.array_split(known, min(POINTS, max(1, len(known))))
    means = ([series[part].mean() for part in parts] for series in (images, numbers))
    panel.plot(*means, linewidth=1.1, **style)


def _upper_bound(lines: Sequence[MetricsLine]) -> float:
    """Leave room for nearly all of the losses: one spike would flatten every other curve."""
    losses = [numbers[key] for line in lines for numbers in line.stages.values() for key in COLOURS if key in numbers]
    return max(2 * EVENLY_MATCHED, 1.1 * float(np.quantile(losses, 0.998)))


def _lower_bound(lines: Sequence[MetricsLine], parts: Sequence[JudgedPart]) -> float:
    """Return 0, or less where a hinge loss of a generator is below it, which it may be by any amount."""
    keys = [(part.stage, f"loss_g{part.suffix}") for part in parts]
    losses = [line.stages.get(stage, {}).get(key, 0.0) for line in lines for stage, key in keys]
    return min(0.0, 1.1 * float(np.quantile(losses, 0.002)))


def _style(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=9, color=INK, loc="left")
    panel.tick_params(colors=INK, labelsize=7, length=2)
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    for name, spine in panel.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)


def rendered(figure: Figure) -> Image.Image:
    """Return the figure as a picture with a transparent ground."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, transparent=True)
    return Image.open(buffer)
