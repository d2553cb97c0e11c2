"""Captions: pictures show what a sentence says, also where the training never showed these things together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster.data.shard_index import index_shards
from cluster.run.settings import RunSettings
from cluster.run.trained_model import open_model
from cluster.training.train import train
from freqgan.generation.synthesiser import Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.pixels import from_pixels, to_pixels
from launch.drawing.grids import tile
from launch.settings.load import load_settings
from tests.campaigns.conditioning.classifier import right, train_classifier
from tests.campaigns.conditioning.shapes import ANSWERS, QUESTIONS, Scene, pictures, scenes, write_world
from tests.support.runs import Events

GENERATED = 240
WORLD = 6_000


class CaptionRow(NamedTuple):
    """The share of right answers by question, for sentences of one kind."""

    what: str
    accuracy: dict[str, float]


def settings_for(run: Path, data: str, images: int, *changes: str) -> RunSettings:
    """Two flow experts of pictures of 32 x 32 pixels, with sentences."""
    base = [
        f"run={run}", f"data={data}", "image_size=32", "levels=1", "classes=0", "conditioning=caption",
        "conditioning.caption_bytes=48", f"images={images}", "statistics_images=2000", "checkpoint_every=100000",
        "executor=inline", "augmentation.flip=false", "generation.label_guidance=0",
    ]  # fmt: skip
    return load_settings("demo", [*base, *changes])


def answers(chosen: list[Scene]) -> Tensor:
    """(N, questions) int64."""
    return torch.tensor([list(scene) for scene in chosen])


def images_of(chosen: list[Scene], seed: int) -> Tensor:
    """Real pictures (N, 3, h, w) in [-1, 1] of scenes."""
    return from_pixels(torch.from_numpy(pictures(chosen, seed)).permute(0, 3, 1, 2))


def generated(model: Synthesiser, chosen: list[Scene], guidance: float) -> Tensor:
    """Pictures (N, 3, h, w) of the sentences about scenes."""
    model.set_generation(model.settings.generation.model_copy(update={"label_guidance": guidance}))
    targets = targets_for(model, 1, len(chosen), TargetParts(captions=[scene.text for scene in chosen]))
    return model.sample(1, len(chosen), targets=targets).images


def run_captions(folder: Path, images: int, say: Callable[[str], None], *changes: str) -> Iterator[CaptionRow]:
    """Train on sentences; have pictures of known and of new sentences judged by a classifier of real ones."""
    data = write_world(folder / "data", WORLD)
    index_shards(data)
    rng = np.random.default_rng(7)
    every = scenes()
    judged = [every[i] for i in rng.integers(0, len(every), 12_000)]
    judge = train_classifier(images_of(judged, 1), answers(judged), ANSWERS, steps=1200, width=16)
    new, known = ([s for s in every if s.is_held_out == out] for out in (True, False))
    chosen = {what: [group[i] for i in rng.integers(0, len(group), GENERATED)] for what, group in
              (("known", known), ("held out", new))}  # fmt: skip
    for what, group in chosen.items():
        yield CaptionRow(f"real, {what}", _answered(judge, images_of(group, 2), group))
    yield CaptionRow("chance", {q: 1 / n for q, n in zip(QUESTIONS, ANSWERS, strict=True)})
    train(settings_for(folder / "run", data, images, *changes), Events())
    _, model = open_model(str(folder / "run"), note=say)
    for guidance in (0, 1, 3):
        for what, group in chosen.items():
            made = generated(model, group, guidance)
            if guidance == 1:
                picture = tile(to_pixels(made[:48]).numpy(), 12, scale=2, gap=2)
                picture.save(folder / f"{what.replace(' ', '-')}.png")
            yield CaptionRow(f"guidance {guidance + 1}, {what}", _answered(judge, made, group))
    swapped = chosen["known"][1:] + chosen["known"][:1]
    first, second = generated(model, chosen["known"], 1), generated(model, swapped, 1)
    yield CaptionRow("the same noise, another sentence", _answered(judge, second, swapped))
    say(f"mean change of a pixel by another sentence: {float((first - second).abs().mean()):.3f} of a range of 2")


def _answered(judge: torch.nn.Module, images: Tensor, group: list[Scene]) -> dict[str, float]:
    from tests.campaigns.conditioning.classifier import Classifier

    assert isinstance(judge, Classifier)
    return dict(zip(QUESTIONS, right(judge, images, answers(group)), strict=True))


def rows_as_text(rows: list[CaptionRow]) -> list[str]:
    """Lines of a table."""
    head = f"{'':34}" + " ".join(f"{question:>12}" for question in QUESTIONS)
    return [head, *(f"{row.what:34}" + " ".join(f"{row.accuracy[q]:12.1%}" for q in QUESTIONS) for row in rows)]
