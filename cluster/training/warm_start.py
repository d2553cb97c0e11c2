"""A new run that begins with what an older one has learned: a checkpoint of step 0 with its state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoint_writer import CheckpointWriter
from cluster.run.data_source import DataSource
from cluster.run.free_run import begin_free_run
from cluster.run.layout import checkpoint_path
from cluster.run.settings import RunSettings
from cluster.run.stage_files import pack_stage
from cluster.stages.lag_buffer import PART
from cluster.storage.checksummed_files import write_files
from freqgan.model.stage_names import stage_names
from freqgan.training.rollback import GOOD

SHAPING = ("system", "image_size", "channels", "bit_depth", "classes", "transform", "packets", "levels", "plan")
"""Settings that decide which networks there are and their shapes; so do some inside noise, image_stage, feedback."""
SHAPING_OF_KIND = {
    "gan": ("coarse_generator", "coarse_discriminator", "band_generator", "band_discriminator"),
    "flow": ("flow.coarse_network", "flow.band_network"),
}
"""Those that decide the shapes of experts of a kind."""


def shape_of(settings: RunSettings) -> dict[str, Any]:
    """Return what must be equal for one model to begin with the state of another."""
    dump = settings.model_dump(mode="json")
    kinds = {gan.name: gan.kind for gan in settings.band_plan().gans}
    shape = {key: dump[key] for key in SHAPING} | {"experts": kinds, "conditioning": settings.target_layout.shape}
    for kind, names in SHAPING_OF_KIND.items():
        used = kind in kinds.values() or (kind == "gan" and settings.system == "fusion")
        shape |= {name: _value(dump, name) if used else None for name in names}
    shape["flow.guide_at"] = "flow" in kinds.values() and settings.flow.guide_at > 0
    stage = dump["image_stage"] if settings.image_stage.enabled else {}
    shape |= {f"image_stage.{key}": stage.get(key) for key in ("generator", "discriminator", "attention", "alpha")}
    shape |= _companion_shape(settings, stage)
    shape["fusion.split"] = dump["fusion"]["split"] if settings.system == "fusion" else None
    shape["noise.dimensions"] = dump["noise"]["dimensions"]
    shape["feedback.discriminator"] = dump["feedback"]["discriminator"] if settings.feeds_back else None
    shape["image_stage.solo"] = bool(stage) and settings.solo_count > 0
    return shape


def _companion_shape(settings: RunSettings, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal of the companion: its kind, and the sizes of that kind."""
    kind = stage.get("companion", "")
    groups = {name: name for name in ("vae", "autoregressive")}
    groups |= {"diffusion": "unet", "flow_matching": "unet", "flow": "glow"}
    shape = {f"image_stage.{group}": stage[group] if groups.get(kind) == group else None for group in groups.values()}
    if kind == "vae":
        shape["image_stage.vae"] = stage["vae"]["latent"]
    return shape | {"image_stage.companion": kind, "image_stage.pool": settings.needs_pool}


def _value(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a dotted name in nested ``values``."""
    for key in name.split("."):
        values = values[key]
    return values


def begin_from(settings: RunSettings, source: DataSource, model: Checkpoint) -> None:
    """Commit the state of ``model`` as step 0 of ``settings.run``: training goes on from there, as after any stop.

    Weights, moving averages and optimiser moments are kept, and the band statistics, in whose units the networks
    think; schedules begin anew. What the last steps of ``model`` had to say to each other is left out.

    Args:
        settings: of the new run; of the same :func:`shape_of` as those of ``model``.
        source: its data.
        model: a checkpoint that verifies.

    """
    if settings.pace == "together":
        _begin(settings, source, model, model.states())
        return
    begin_free_run(settings, source.fingerprint(), model.statistics, source.class_names, source.values)
    states = model.states()
    for own in settings.by_component().values():
        _begin(own, source, model, states)


def _begin(
    settings: RunSettings, source: DataSource, model: Checkpoint, states: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Commit the state of the stages that ``settings`` train; ``states`` (...) are those of ``model``."""
    writer = CheckpointWriter(
        settings,
        model.statistics(),
        source.fingerprint(),
        class_names=source.class_names,
        values=source.values,
    )
    records = []
    for name in stage_names(settings):
        scalars = json.loads(model.counters(name))
        own = {key: x for key, x in states[name].items() if key.split(".")[0] not in (PART, GOOD)}
        begun = {key: x for key, x in scalars.items() if key.split(".")[0] != GOOD}
        begun |= {"step": 0, "signs": 0, "setbacks": 0, "good_step": 0}
        files = {checkpoint_path(0, writer.attempt, k): data for k, data in pack_stage(name, own, begun).items()}
        records += write_files(writer.root.url, files)
    writer.commit(0, records)
