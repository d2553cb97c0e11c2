"""Small trainings that tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster.data.packing import pack
from cluster.data.quarantine import QuarantinedImage
from cluster.evaluation.background import Evaluation
from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.training.train import TrainResult, train
from tests.support.models import TINY, TINY_SIZES


def tiny_run_settings(run: str | Path, data: str | Path, **changes: Any) -> RunSettings:
    """Six steps of four GANs and the image stage on 16x16 pictures; a checkpoint every second step."""
    base: dict[str, Any] = {
        "run": str(run), "data": str(data), "image_size": 16, "levels": 1, "batch": 8, "images": 400, "max_steps": 6,
        "statistics_images": 64, "checkpoint_every": 2, "noise": {"dimensions": 16}, "executor": "inline",
        "device": "cpu", "feedback": {"lag": 2, "discriminator": TINY},
    }  # fmt: skip
    return RunSettings.model_validate(base | TINY_SIZES | changes)


def whole_and_resumed(settings: Callable[[str, int], RunSettings]) -> tuple[Checkpoint, Checkpoint]:
    """The last checkpoints of a run of four steps in one go, and of one that was stopped after two.

    ``settings`` are those of the run of a name that takes so many steps.
    """
    for name, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        trained(settings(name, steps))
    whole, parts = (find_checkpoint(settings(name, 4).run) for name in ("whole", "parts"))
    return whole, parts


def write_small_shards(folder: Path) -> Path:
    """Shards of 96 labelled 16x16 pictures (two classes): smooth gradients with a random edge, seeded."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 16)
    for i in range(96):
        label = folder / "pictures" / ("edges", "ramps")[i % 2]
        label.mkdir(parents=True, exist_ok=True)
        picture = np.outer(ramp, np.ones(16))[..., None] * rng.uniform(60, 200, 3)
        if i % 2 == 0:
            picture[:, rng.integers(2, 14) :] = rng.uniform(0, 255, 3)
        Image.fromarray(picture.astype(np.uint8)).save(label / f"{i:03d}.png")
    pack(str(folder / "pictures"), str(folder / "small"), shard_samples=40)
    return folder / "small"


@dataclass
class Events:
    """A reporter that remembers."""

    first_step: int = -1
    notes: list[str] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    evaluations: list[tuple[Evaluation, bool]] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    left_out: list[tuple[QuarantinedImage, int]] = field(default_factory=list)
    ended: tuple[int, str] | None = None

    def on_prepare(self, text: str) -> None:
        pass

    def on_start(self, first_step: int, notes: list[str]) -> None:
        self.first_step, self.notes = first_step, notes

    def on_step(self, record: StepRecord) -> None:
        self.records.append(record)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint.step)

    def on_evaluation(self, evaluation: Evaluation, *, best: bool) -> None:
        self.evaluations.append((evaluation, best))

    def on_recovery(self, recovery: Recovery) -> None:
        self.recoveries.append(recovery)

    def on_quarantine(self, image: QuarantinedImage, count: int) -> None:
        self.left_out.append((image, count))

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_end(self, step: int, reason: str) -> None:
        self.ended = (step, reason)


def trained(settings: RunSettings, address: str | None = None) -> tuple[TrainResult, Events, str]:
    """Trains; (result, events, digest of the newest checkpoint)."""
    events = Events()
    result = train(settings, events, address=address)
    return result, events, find_checkpoint(settings.run).digest()


def trained_with(settings: RunSettings, events: Events) -> str:
    """Trains and tells ``events``; the digest of the newest checkpoint."""
    train(settings, events)
    return find_checkpoint(settings.run).digest()
