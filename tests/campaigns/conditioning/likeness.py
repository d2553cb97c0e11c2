"""Examples: images are like the one that was shown, and no copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cluster.run.feature_networks import features_of
from cluster.run.trained_model import open_model
from cluster.training.train import train
from freqgan.generation.synthesiser import Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.metrics.features import random_features
from freqgan.metrics.neighbours import neighbour_scores
from freqgan.pixels import to_pixels
from launch.drawing.grids import tile
from tests.campaigns.conditioning.classes import SYSTEMS, settings_for, stored_images
from tests.support.runs import Events

EXAMPLES = 256
FIRST, OTHERS = 45_000, 5_000
"""Real images that are compared with: the last of an epoch, which so short a training does not come to."""
FEATURES = ("classes=0", "conditioning=features", "conditioning.features_length=32")


class LikenessRow(NamedTuple):
    """Of images made after examples.

    Attributes:
        system: that made them.
        guidance: 1 is without.
        nearer: the mean share of random real images that are farther from the example than the image made after it.
        duplicates: near-copies of each other among the images, and of images made without a target.
        copies: the share that is nearer to its example, in other features, than real images are to their nearest.

    """

    system: str
    guidance: int
    nearer: float
    duplicates: tuple[float, float]
    copies: float


def run_likeness(folder: Path, data: str, images: int, say: Callable[[str], None]) -> list[LikenessRow]:
    """Train on features, show examples that the training has not seen, and compare."""
    rows = []
    for number, system in enumerate(("bands, flow", "bands, GAN")):
        run = folder / f"likeness-{number}"
        settings = settings_for(run, data, images, *SYSTEMS[system], *FEATURES)
        train(settings, Events())
        checkpoint, model = open_model(str(run), note=say)
        real, _ = stored_images(settings, FIRST, OTHERS)
        mapping = checkpoint.statistics().feature_map
        known = features_of(real, settings, mapping)
        examples = slice(0, EXAMPLES)
        nearest = _nearest(random_features(real[:2000]))
        for guidance in (1, 2, 4):
            made, without = (_made(model, known[examples], guidance, shown=shown) for shown in (True, False))
            seen = features_of(made, settings, mapping)
            own = (seen - known[examples]).norm(dim=1)
            farther = (torch.cdist(known[examples], known[EXAMPLES:]) > own[:, None]).float().mean(1)
            scores = [neighbour_scores(random_features(real[:EXAMPLES]), random_features(x)) for x in (made, without)]
            distance = (random_features(made) - random_features(real[examples])).norm(dim=1)
            copies = float((distance < nearest.quantile(0.01)).float().mean())
            pair = (scores[0]["duplicates"], scores[1]["duplicates"])
            rows.append(LikenessRow(system, guidance, float(farther.mean()), pair, copies))
            say(f"{rows[-1]}, above .95 for {float((farther > 0.95).float().mean()):.1%} of the examples")
            picture = torch.stack([real[:24], made[:24]], 1).flatten(0, 1)
            tile(picture.numpy(), 16, scale=3, gap=2).save(folder / f"likeness-{number}-{guidance}.png")
    return rows


def _made(model: Synthesiser, features: Tensor, guidance: int, *, shown: bool) -> Tensor:
    """Stored images (B, C, N, N) made after features (B, d)."""
    generation = model.settings.generation.model_copy(update={"label_guidance": float(guidance - 1)})
    model.set_generation(generation)
    targets = targets_for(model, 1, len(features), TargetParts(features=features))
    assert targets is not None
    if not shown:
        targets[:, model.settings.target_layout.columns["shown"]] = 0
    return to_pixels(model.sample(1, len(features), targets=targets).images).clone()


def _nearest(x: Tensor) -> Tensor:
    """The distance (N,) of every row to the nearest other one."""
    distances = torch.cdist(x, x)
    distances.fill_diagonal_(float("inf"))
    return distances.min(1).values


def rows_as_text(rows: list[LikenessRow]) -> list[str]:
    """Lines of a table."""
    head = f"{'':14} {'guidance':>9} {'nearer than':>12} {'duplicates':>11} {'without':>9} {'copies':>8}"
    lines = [
        f"{r.system:14} {r.guidance:9} {r.nearer:12.1%} {r.duplicates[0]:11.1%} {r.duplicates[1]:9.1%} {r.copies:8.1%}"
        for r in rows
    ]
    return [head, *lines]
