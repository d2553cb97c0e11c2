"""Every companion, trained alone and blended with the bands: how its own measure and its images have moved.

``python -m tests.campaigns.companions SHARDS HELD_OUT`` (``make companions COMPANIONS="SHARDS HELD_OUT --minutes 5"``)
trains each for so many minutes of processor time, in one process, and prints its own measure over the first and the
last twentieth of the steps (a loss, ELBO or bits per dimension), alpha, and the sliced Wasserstein distance of its
images from real ones after a quarter of the training and at the end. Ends with 1 where a measure has become worse.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cluster.evaluation.evaluate import real_images_for
from cluster.planning.training_rate import training_rates
from cluster.run.settings import RunSettings
from cluster.run.trained_model import open_model
from cluster.training.train import train
from freqgan.generation.synthesiser import BLOCK, Generated, Synthesiser
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.model.companion_settings import COMPANIONS, POOLED
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.pixels import to_pixels
from launch.settings.load import load_settings
from tests.support.runs import Events

MEASURES = {"companion_elbo": -1, "companion_bits_per_dimension": 1, "companion_loss": 1}
"""Own measures by their name among the metrics, the first that is there counts; 1 where low is good, else -1."""
QUARTERS = 4


class Row(NamedTuple):
    """What became of one training.

    Attributes:
        name: the companion, and whether it was blended.
        images: that it saw.
        measure: the name of its own measure, "" of one that discriminators train.
        first: its mean over the first twentieth of the steps.
        last: its mean over the last.
        alpha: at the end, None alone.
        distances: by part, after a quarter of the training and at the end.

    """

    name: str
    images: int
    measure: str
    first: float
    last: float
    alpha: float | None
    distances: dict[str, tuple[float, float]]

    @property
    def is_worse(self) -> bool:
        """Whether its own measure has moved the wrong way."""
        return bool(self.measure) and MEASURES[self.measure] * (self.last - self.first) > 0

    def text(self) -> str:
        """The row as a line."""
        own = f"{self.measure.removeprefix('companion_')} {self.first:.4g} -> {self.last:.4g}" if self.measure else "-"
        moved = ", ".join(f"{part} {begin:.1f} -> {end:.1f}" for part, (begin, end) in self.distances.items())
        alpha = "" if self.alpha is None else f"  alpha {self.alpha:.3f}"
        return f"{self.name:28} {self.images:>9,} images  {own}  SWD {moved}{alpha}"


def try_companion(settings: RunSettings, reference: Tensor, name: str) -> Row:
    """Trains ``settings`` to their end and measures them against ``reference``, uint8 (n, C, N, N)."""
    events = Events()
    train(settings, events)
    metrics = [record.stages[IMAGE_STAGE] for record in events.records]
    measure = next((key for key in MEASURES if key in metrics[-1]), "")
    share = max(1, len(metrics) // 20)
    first, last = (
        fmean(one[measure] for one in part) if measure else math.nan for part in (metrics[:share], metrics[-share:])
    )
    quarter = settings.checkpoint_every * settings.batch
    begin, end = (distances(settings, at_images, reference) for at_images in (quarter, None))
    moved = {part: (begin[part], end[part]) for part in end}
    return Row(name, settings.last_step * settings.batch, measure, first, last, metrics[-1].get("alpha"), moved)


def distances(settings: RunSettings, at_images: int | None, reference: Tensor) -> dict[str, float]:
    """The sliced Wasserstein distance of each part of the newest images, or those of ``at_images``, from real ones."""
    _, synthesiser = open_model(settings.run, at_images=at_images, note=lambda _: None)
    generated = generated_like(synthesiser, len(reference))
    parts = {"companion": generated.conventional}
    if settings.band_plan().gans:
        parts |= {"chain": generated.frequency, "blend": generated.images}
    return {part: sliced_wasserstein(reference, to_pixels(images))[""] for part, images in parts.items()}


def generated_like(synthesiser: Synthesiser, count: int) -> Generated:
    """Samples 0 .. ``count`` of seed 0."""
    return Generated.joined([
        synthesiser.sample(0, min(BLOCK, count - first), first) for first in range(0, count, BLOCK)
    ])  # fmt: skip


def settings_of(options: argparse.Namespace, kind: str, *, alone: bool, run: Path) -> RunSettings:
    """The settings of one training, with the images that it sees in the minutes that it is given."""
    overrides = [
        f"data={options.shards}", f"run={run}", "executor=inline", f"image_stage.companion={kind}",
        "image_stage.alpha=scalar", *options.overrides, *(["plan.bands=none"] if alone else []),
    ]  # fmt: skip
    settings = load_settings(options.settings, overrides)
    rate = training_rates({kind: settings}, lambda _: None)[kind]
    steps = max(QUARTERS, int(rate * 60 * options.minutes) // settings.batch)
    changes: dict[str, Any] = {"images": steps * settings.batch, "max_steps": None, "keep_checkpoints": 2 * QUARTERS}
    return settings.model_copy(update=changes | {"checkpoint_every": steps // QUARTERS})


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each training."""
    options = _options(arguments)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(options.only.split(",")):
            for alone in (True, False):
                name = f"{kind}, {'alone' if alone else 'blended'}"
                settings = settings_of(options, kind, alone=alone, run=Path(folder) / f"{number}-{int(alone)}")
                count = options.pixelwise if kind == POOLED[1] else options.count
                reference, _ = real_images_for(settings, options.held_out, count, lambda _: None)
                rows.append(try_companion(settings, reference, name))
                print(rows[-1].text(), flush=True)
    worse = [row.name for row in rows if row.is_worse]
    print(f"{len(rows)} trainings; own measure worse: {', '.join(worse) or 'none'}")
    return int(bool(worse))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="companions")
    parser.add_argument("shards", help="shards to train on")
    parser.add_argument("held_out", help="shards to measure against")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting as key=value")
    parser.add_argument("--settings", default="cifar10", help="preset or settings file of the model")
    parser.add_argument("--minutes", type=float, default=5, help="of processor time, for each training")
    parser.add_argument("--count", type=int, default=1_000, help="images that are measured")
    parser.add_argument("--pixelwise", type=int, default=128, help="images of autoregressive that are measured")
    parser.add_argument("--only", default=",".join(COMPANIONS), help="companions")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray is to listen on loopback alone
    sys.exit(main(sys.argv[1:]))
