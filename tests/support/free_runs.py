"""Small runs at a free pace, of each kind of experts that can train apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.execution.callbacks import TrainingCallback
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.training.free_running import FreeResult, train_components
from tests.support.flows import TINY_FLOW
from tests.support.runs import Events, tiny_run_settings, trained

FLOW = {"coarse_network": TINY_FLOW, "band_network": TINY_FLOW, "optimiser": {"warmup_images": 0}}
KINDS: dict[str, dict[str, Any]] = {
    "flow experts": {"experts": {"default": "flow"}, "flow": FLOW, "image_stage": {"enabled": False}},
    "mixed chain": {"experts": {"LL1": "flow"}, "flow": {**FLOW, "outputs": "real"}},
    "GANs apart": {"exchange": "none", "image_stage": {"enabled": False}, "teacher_forcing": {"start": 1, "end": 1}},
}
"""Flow experts alone; a flow expert beside GANs that an image stage judges; GANs on real conditions."""


def free_settings(run: str | Path, data: str | Path, kind: str = "flow experts", **changes: Any) -> RunSettings:
    """As :func:`tests.support.runs.tiny_run_settings`, for stages of one of KINDS at a free pace."""
    return tiny_run_settings(run, data, **{**KINDS[kind], "pace": "free", **changes})


def together(settings: RunSettings, run: str | Path) -> RunSettings:
    """The same stages, all of them at the same step, in another folder."""
    joint = settings.model_copy(update={"pace": "together", "run": str(run), "only": (), "stage_images": {}})
    return joint.model_copy(update={"exchange": "float32"})


def trained_apart(settings: RunSettings, *only: str, callback: TrainingCallback | None = None) -> FreeResult:
    """Trains the stages ``only``, all of them where none is named."""
    return train_components(settings.model_copy(update={"only": only}), callback or Events(), lambda own: Events())


def stage_digests(run: str) -> dict[str, str]:
    """Of the newest checkpoint of every stage."""
    return find_checkpoint(run).stage_digests()


def digests_together(settings: RunSettings, run: str | Path) -> dict[str, str]:
    """Of all stages, trained with one another."""
    joint = together(settings, run)
    trained(joint)
    return stage_digests(joint.run)
