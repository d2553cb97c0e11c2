"""The settings of a run: the model's, and where and how it is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from cluster.data.settings import DataSettings
from freqgan.errors import InputError, nearest
from freqgan.metrics.catalogue import FEWEST
from freqgan.model.settings import ModelSettings
from freqgan.setting_group import SettingGroup

FREE_SETTINGS = (
    "run",
    "data",
    "executor",
    "window",
    "device",
    "cuda_graphs",
    "max_steps",
    "checkpoint_every",
    "keep_checkpoints",
    "watch",
    "max_failures",
    "max_preemption_failures",
    "heartbeat_timeout_s",
    "machines_timeout_s",
    "object_store_mib",
    "snapshot_every",
    "step_deadline_s",
    "replicas",
    "replica_timeout_s",
    "storage_timeout_s",
    "readers",
    "max_damaged",
    "shard_cache",
    "shard_cache_mib",
)
"""Settings that may differ when a run is resumed: they do not change the arithmetic of a step.

Except that replicas add up gradients in another order: R of them equal one to rounding, and each other to the bit.

``data`` may be another copy of the same shards; a fingerprint of their contents is compared instead.
"""


class WatchSettings(SettingGroup):
    """Scores of every checkpoint; none without ``data``."""

    data: str = Field("", description="shards of real images to score checkpoints against, best not trained on")
    count: int = Field(1_000, ge=FEWEST, description="images per score; the real ones must be twice as many")


class RunSettings(ModelSettings):
    """All settings of ``freqgan train``; see each field's description."""

    run: str = Field("runs/default", description="folder or s3:// URL of everything the run writes")
    data: str = Field("", description="folder, glob or s3:// URL of WebDataset shards")
    ingest: DataSettings = DataSettings()
    executor: Literal["inline", "ray"] = Field("ray", description="one process, or one Ray actor per GAN")
    window: int = Field(8, ge=1, le=64, description="steps in flight (ray)")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    cuda_graphs: bool = Field(
        False,
        description="on a GPU, record the kernels of a step as CUDA graphs and replay them: small networks wait for "
        "launches; no effect on a CPU and on stages with replicas",
    )
    threads: int = Field(1, ge=1, le=1024, description="threads inside one operation; part of the arithmetic on a CPU")
    exchange: Literal["float32", "float16"] = Field(
        "float32", description="of sub-images and feedback between stages; float16 halves the bytes and rounds"
    )
    max_steps: int | None = Field(
        None, ge=1, description="stop here, before `images` are seen; schedules stay as they are"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(3, ge=1, description="newest checkpoints that are kept; the best one is as well")
    watch: WatchSettings = WatchSettings()
    max_failures: int = Field(
        16, ge=-1, description="deaths of actors to recover from by replay before the run fails; -1 is no limit (ray)"
    )
    max_preemption_failures: int = Field(
        -1, ge=-1, description="losses of machines to recover from before the run fails; -1 is no limit (ray)"
    )
    heartbeat_timeout_s: float = Field(
        10, gt=0, description="a machine, or Ray's head, that cannot be reached for this long is taken for lost (ray)"
    )
    machines_timeout_s: float = Field(
        600, ge=0, description="how long to wait for a machine where none can be used (ray)"
    )
    object_store_mib: int = Field(
        4096,
        ge=1,
        description="most that is kept in the object store for replays; snapshots are taken more often, and fewer "
        "steps are in flight, where it would be more (ray)",
    )
    replicas: dict[str, int] = Field(
        {}, description="actors that share the batches of a GAN, by its name, 1 where not given (ray)"
    )
    replica_timeout_s: float = Field(
        30, gt=0, description="a replica that the others have waited for this long is taken for dead (ray)"
    )
    readers: int = Field(
        1, ge=1, description="processes that read and decode shards, in turns; more where one is not enough (ray)"
    )
    max_damaged: int = Field(
        16,
        ge=0,
        description="images that stay damaged however often they are fetched and are left out before the run fails",
    )
    shard_cache: str = Field(
        "", description="local folder that keeps copies of the shards of a bucket, for all readers of a machine"
    )
    shard_cache_mib: int = Field(32_768, ge=1, description="most that these copies take; the last used ones stay")
    storage_timeout_s: float = Field(
        120, gt=0, description="storage of shards that gives nothing for this long, however often asked, is given up"
    )
    step_deadline_s: float = Field(
        600,
        gt=0,
        description="a stage that takes longer for a step is ended and replayed; its stacks are logged (ray)",
    )
    snapshot_every: int = Field(
        10, ge=1, description="steps between snapshots on local disks, from which a dead stage is replayed (ray)"
    )

    @model_validator(mode="after")
    def _replicas(self) -> RunSettings:
        """Refuses replicas that there cannot be."""
        names = [gan.name for gan in self.band_plan().gans]
        for name, count in self.replicas.items():
            if name not in names:
                there = f"there are {', '.join(names)}" if names else "the plan has none"
                raise InputError(f"replicas: no GAN is called {name!r}{nearest(name, names)}; {there}")
            if count < 1 or self.batch % count:
                raise InputError(
                    f"replicas.{name}: a batch of {self.batch} images cannot be cut into {count} equal parts: choose a "
                    "number of replicas that divides the batch"
                )
        return self

    @property
    def last_step(self) -> int:
        """The step at which training ends."""
        steps = -(-self.images // self.batch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def identity(self) -> dict[str, Any]:
        """The settings that must not differ when a run is resumed, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(FREE_SETTINGS))


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ between two nested dictionaries, with (ours, theirs)."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            differing |= differing_keys(mine, other, f"{prefix}{key}.")
        elif mine != other:
            differing[prefix + key] = (mine, other)
    return differing
