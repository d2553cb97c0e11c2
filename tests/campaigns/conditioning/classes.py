"""Classes: a classifier of real images recognises the class that was asked for, with more guidance more often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cluster.run.data_source import open_source
from cluster.run.settings import RunSettings
from cluster.run.trained_model import open_model
from cluster.training.train import train
from freqgan.generation.synthesiser import Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.metrics.features import random_features
from freqgan.metrics.frechet import frechet_distance
from freqgan.pixels import from_pixels, to_pixels
from launch.settings.load import load_settings
from tests.campaigns.conditioning.classifier import right, train_classifier
from tests.support.runs import Events

GUIDANCE = (1, 2, 4)
"""1 is without; w leads w - 1 times as far away from what is made without a target."""
SYSTEMS: dict[str, list[str]] = {
    "bands, GAN": [],
    "bands, flow": [
        "experts=flow", "plan.strict_nesting=true", "plan.high_gans={1: 1}", "image_stage=none",
        "flow.coarse_network={width: 48, coarse_width: 96}", "flow.band_network={width: 32, coarse_width: 64}",
    ],
    "single": ["system=single"],
    "fusion": ["system=fusion"],
}  # fmt: skip
REAL = 20_000
STEPS = 1500
GENERATED = 500


class ClassRow(NamedTuple):
    """How often a system's images are recognised, by guidance."""

    system: str
    accuracy: dict[int, float]


class RealImages(NamedTuple):
    """Images (N, C, h, w) in [-1, 1] and their labels (N,)."""

    images: Tensor
    labels: Tensor


def settings_for(run: Path, data: str, images: int, *changes: str) -> RunSettings:
    """CIFAR-10 at 16 x 16 pixels: pictures of things, in minutes."""
    base = [
        f"run={run}", f"data={data}", "image_size=16", "levels=1", "batch=32", f"images={images}", "conditioning=class",
        "statistics_images=2000", "checkpoint_every=100000", "executor=inline", "average.halflife_images=5000",
    ]  # fmt: skip
    return load_settings("cifar10", [*base, *changes])


def stored_images(settings: RunSettings, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Stored images (N, C, h, w) at ``first`` .. of the training order, and their labels (N,)."""
    plain = settings.conditioning.model_copy(update={"kinds": ()})
    with open_source(settings.model_copy(update={"conditioning": plain})).ingest() as ingest:
        batch = ingest.batch(first, count)
    return torch.from_numpy(batch.images.copy()), torch.from_numpy(batch.targets)


def real_images(settings: RunSettings, count: int) -> RealImages:
    """The first images of the training order, as stages get them."""
    pixels, labels = stored_images(settings, 0, count)
    return RealImages(from_pixels(pixels), labels)


def generated(model: Synthesiser, weight: int, count: int, classes: int) -> RealImages:
    """Images of all classes in turn, led ``weight`` - 1 times away from those without."""
    model.set_generation(model.settings.generation.model_copy(update={"label_guidance": float(weight - 1)}))
    labels = torch.arange(count) % classes
    return RealImages(model.sample(1, count, targets=targets_for(model, 1, count, TargetParts(labels))).images, labels)


def run_classes(folder: Path, data: str, images: int, say: Callable[[str], None]) -> Iterator[ClassRow]:
    """Train every system and have its images recognised."""
    real = real_images(settings_for(folder, data, images), REAL)
    parts = slice(0, len(real.images) * 9 // 10), slice(len(real.images) * 9 // 10, None)
    classes = int(real.labels.max()) + 1
    judge = train_classifier(real.images[parts[0]], real.labels[parts[0], None], [classes], steps=STEPS)
    (share,) = right(judge, real.images[parts[1]], real.labels[parts[1], None])
    say(f"of real images that the classifier has not seen {share:.1%} are recognised; chance has {1 / classes:.1%}")
    for number, (system, changes) in enumerate(SYSTEMS.items()):
        run = folder / str(number)
        train(settings_for(run, data, images, *changes), Events())
        _, model = open_model(str(run), note=say)
        accuracy: dict[int, float] = {}
        for weight in GUIDANCE:
            made = generated(model, weight, GENERATED, classes)
            (accuracy[weight],) = right(judge, made.images, made.labels[:, None])
            pixels = [to_pixels(x).clone() for x in (real.images[: len(made.images)], made.images)]
            distance = frechet_distance(*(random_features(x) for x in pixels))
            say(f"{system}, guidance {weight}: {accuracy[weight]:.1%} recognised, random features {distance:.3f}")
        yield ClassRow(system, accuracy)


def rows_as_text(rows: list[ClassRow]) -> list[str]:
    """Lines of a table."""
    return [f"{row.system:12} " + " ".join(f"{row.accuracy[w]:7.1%}" for w in GUIDANCE) for row in rows]
