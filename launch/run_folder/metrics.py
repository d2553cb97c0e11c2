"""``metrics.jsonl``: one line per finished step; written while training, cut on resume, read by the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqgan.bands import parse_band
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE
from launch.run_folder.json_lines import JsonLines, JsonLinesFile

if TYPE_CHECKING:  # importing torch takes a second
    from cluster.execution.callbacks import StepRecord

METRICS = "metrics.jsonl"
DIGITS = 6
ALPHA, LAMBDA = "alpha", "lambda"
"""What the share of the bands in the images is called, of the chain and of the jointly trained system."""


@dataclass(frozen=True)
class MetricsLine:
    """One line: ``wall_s`` is the time trained so far, over all starts of the run."""

    step: int
    images: int
    wall_s: float
    images_per_s: float
    stages: dict[str, dict[str, float]]


def _metrics_line(values: dict[str, Any]) -> MetricsLine:
    return MetricsLine(**values)


METRICS_LINES = JsonLines(asdict, _metrics_line, gapless=True)


class MetricsLog:
    """Appends to a local ``metrics.jsonl``; lines of steps after ``first_step``, and a torn one, are cut first.

    A run that was killed has lines of steps that came after its last checkpoint; it trains them again.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self._file = JsonLinesFile(path, METRICS_LINES, lambda line: line.step <= first_step)
        self._wall_before_s = 0.0 if self._file.last is None else self._file.last.wall_s

    def append(self, record: StepRecord) -> None:
        """Write the line of one step."""
        stages = {name: {key: _short(x, key) for key, x in numbers.items()} for name, numbers in record.stages.items()}
        wall_s = round(self._wall_before_s + record.elapsed_s, 3)
        self._file.append(MetricsLine(record.step, record.images, wall_s, _short(record.images_per_s), stages))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def parse_metrics(lines: Iterable[bytes]) -> Iterator[MetricsLine]:
    """Yield the lines up to the first one that is torn or foreign."""
    return METRICS_LINES.read(lines)


def trained_minutes(lines: Iterable[bytes]) -> float:
    """Return the minutes that the stages took for all steps, over all starts of the run; reading images is left out."""
    return sum(numbers["seconds"] for line in parse_metrics(lines) for numbers in line.stages.values()) / 60


def alphas_of(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the blend weights among the numbers of the image stage: {"alpha": x}, or one per band by its name."""
    return {name: x for name, x in numbers.items() if name == "alpha" or _is_band(name)}


def _is_band(name: str) -> bool:
    try:
        parse_band(name)
    except ValueError:
        return False
    return True


def mean_alpha(stages: Mapping[str, Mapping[str, float]]) -> float | None:
    """Return the blend weight of a step, of one weight per band their mean; None where the image stage gave none."""
    weights = list(alphas_of(stages.get(IMAGE_STAGE, {})).values())
    return sum(weights) / len(weights) if weights else None


def blend_share(stages: Mapping[str, Mapping[str, float]]) -> float | None:
    """Return the share of the bands in the images of a step: lambda, or alpha; None where nothing is blended."""
    share = stages.get(FUSION_STAGE, {}).get(LAMBDA)
    return mean_alpha(stages) if share is None else share


def _short(value: float, key: str = "") -> float:
    return round(value, 4) if key.endswith("_s") else float(f"{value:.{DIGITS}g}")
