"""The settings of a run: the model's, and where and how it is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cluster.data.settings import DataSettings
from cluster.run.layout import component_run
from freqgan.errors import InputError, nearest
from freqgan.metrics.catalogue import FEWEST, Yardstick
from freqgan.model.components import Component, chosen_components, component_settings, components
from freqgan.model.settings import ModelSettings
from freqgan.setting_group import SettingGroup


class WatchSettings(SettingGroup):
    """Scores of every checkpoint; none without ``data``."""

    data: str = Field(
        "",
        description="Shards of real images to score checkpoints against; best not those that are trained on. "
        "Empty: no scores.",
    )
    count: int = Field(
        1_000, ge=FEWEST, description="Generated images per score. The shards must hold twice as many real ones."
    )
    learned: bool = Field(
        True,
        description="Whether distances by learned features are measured too: two small networks are taught what the "
        "images of `data` show, once for these shards, which takes minutes of a core.",
    )
    best: Yardstick = Field(
        "learned",
        description="What decides which checkpoint is the best. learned: the Frechet distance by learned features, "
        "where they are measured. bands: the geometric mean of five ratios of statistics of bands.",
    )


class TrackingSettings(SettingGroup):
    """Experiment trackers that get the numbers of a training too; it neither waits nor fails for them."""

    mlflow: str = Field(
        "",
        description="Tracking URI of MLflow, http://host:5000; its user and password are in MLFLOW_TRACKING_USERNAME "
        "and MLFLOW_TRACKING_PASSWORD. Needs the extra `mlflow`.",
    )
    wandb: str = Field(
        "",
        description="Project of Weights & Biases; its key is in WANDB_API_KEY, and WANDB_MODE=offline writes files "
        "alone. Needs the extra `wandb`.",
    )
    experiment: str = Field("freqgan", min_length=1, description="Experiment of MLflow that runs are put into.")

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, value: str) -> str:
        """Refuse passwords: settings are stored with every checkpoint."""
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise InputError(
                "tracking.mlflow holds a user or password, and settings are stored with the run: put them into "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value


class WorkerSettings(SettingGroup):
    """Processes that share every batch of the jointly trained system (`system=fusion executor=ray`).

    Ray Train starts as many as the cluster has room for, and starts the group anew, from the newest checkpoint, when a
    worker is lost or another number has room.
    """

    min: int = Field(1, ge=1, description="Fewest workers; training waits for so many.")
    max: int = Field(1, ge=1, description="Most workers. Each trains on its own rows of every batch.")


class ExecutionSettings(SettingGroup):
    """Where, how long and how fast a run trains: these may differ when it is resumed, everything else may not.

    They do not change the arithmetic of a step. Replicas alone add up gradients in another order, so that R of them
    equal one up to rounding, and each other to the bit. ``data`` may be another copy of the same shards: a fingerprint
    of their contents is compared instead.
    """

    run: str = Field("runs/default", description="Folder or s3:// URL of everything that the run writes.")
    data: str = Field("", description="Folder, glob or s3:// URL of the WebDataset shards to train on.")
    executor: Literal["inline", "ray"] = Field(
        "ray", description="inline: everything in one process. ray: one Ray actor per expert, on one machine or many."
    )
    window: int = Field(8, ge=1, le=64, description="Steps in flight at a time (ray).")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one.")
    cuda_graphs: bool = Field(
        False,
        description="On a GPU, record the kernels of a step as CUDA graphs and replay them: small networks spend "
        "most of a step on launching kernels, and a replay spares most launches. It is off because "
        "it has not been timed on a GPU yet. CPUs, and stages with replicas, run as always.",
    )
    max_steps: int | None = Field(
        None, ge=1, description="Stop at this step, before `images` are seen. Schedules stay as they are."
    )
    checkpoint_every: int = Field(
        500, ge=1, description="Steps between checkpoints. What is lost with a machine is at most this much work."
    )
    keep_checkpoints: int = Field(
        3, ge=1, description="The newest checkpoints that are kept. The best scored one is kept as well."
    )
    watch: WatchSettings = WatchSettings()
    tracking: TrackingSettings = TrackingSettings()
    max_failures: int = Field(
        16, ge=-1, description="Deaths of actors that the run recovers from before it fails; -1 is no limit (ray)."
    )
    max_preemption_failures: int = Field(
        -1, ge=-1, description="Losses of machines that the run recovers from before it fails; -1 is no limit (ray)."
    )
    heartbeat_timeout_s: float = Field(
        10,
        gt=0,
        description="A machine, or Ray's head, that cannot be reached for so many seconds counts as lost. Ray "
        "itself needs over a minute to notice (ray).",
    )
    machines_timeout_s: float = Field(
        600, ge=0, description="Seconds to wait for a machine when none can be used (ray)."
    )
    object_store_mib: int = Field(
        4096,
        ge=1,
        description="Most memory, in MiB, that the last steps take in the object store so that they can be "
        "replayed. Where they are larger, snapshots are taken more often and fewer steps are in "
        "flight (ray).",
    )
    replicas: dict[str, int] = Field(
        {},
        description="Actors that share the batches of an expert, by its name (replicas.HL1=2); 1 where not given. "
        "They exchange gradients by NCCL on GPUs and gloo on CPUs. R replicas compute what one "
        "would, up to rounding (ray).",
    )
    workers: WorkerSettings = WorkerSettings()
    machines: dict[str, str] = Field(
        {},
        description="Address of the machine that an expert should be on, by its name (machines.HL1=10.0.0.7); it goes "
        "to another where that one cannot be used (ray).",
    )
    replica_timeout_s: float = Field(
        30,
        gt=0,
        description="A replica that keeps the others waiting for so many seconds counts as dead; its group forms "
        "anew and repeats the steps since the snapshot (ray).",
    )
    readers: int = Field(
        1,
        ge=1,
        description="Processes that read and decode shards, in turns. The batches are the same for any number of "
        "them (ray).",
    )
    max_damaged: int = Field(
        16,
        ge=0,
        description="Images that may be left out because they stay damaged however often they are fetched, or "
        "cannot be decoded. One more ends the run with exit code 3.",
    )
    shard_cache: str = Field(
        "",
        description="Local folder that keeps copies of the shards of a bucket, for all readers of a machine. It "
        "needs an index beside the shards.",
    )
    shard_cache_mib: int = Field(
        32_768, ge=1, description="Most that these copies take, in MiB; those that were not used for longest go first."
    )
    storage_timeout_s: float = Field(
        120,
        gt=0,
        description="Storage of shards that gives not a byte for so many seconds, however often it is asked, "
        "ends the run with exit code 3.",
    )
    step_deadline_s: float = Field(
        600,
        gt=0,
        description="A stage that takes longer than this for a step, or is frozen, is ended and replaced. Ray's "
        "log holds where it was stuck (ray).",
    )
    snapshot_every: int = Field(
        10,
        ge=1,
        description="Steps between the snapshots of a stage on local disks. A dead stage is replayed from the "
        "last one (ray).",
    )


MAY_CHANGE = {*ExecutionSettings.model_fields, "generation", "only", "conditioning.run"}
"""Settings that may differ when a run is resumed: training does not depend on how flow experts generate, nor on which
of the stages that do not wait for each other a process trains, nor on whose images features are generated from."""


class RunSettings(ExecutionSettings, ModelSettings):
    """All settings of ``freqgan train``; see each field's description."""

    ingest: DataSettings = DataSettings()
    threads: int = Field(
        1,
        ge=1,
        le=1024,
        description="Threads inside one operation. They are part of the arithmetic on a CPU, so the digest "
        "depends on them.",
    )
    exchange: Literal["float32", "float16", "none"] = Field(
        "float32",
        description="Numbers that travel between stages: float16 halves the bytes of sub-images and feedback, "
        "and rounds differently. none: nothing travels, every stage trains apart on real bands alone; it is short for "
        "image_stage=none teacher_forcing.start=1 teacher_forcing.end=1 pace=free.",
    )
    pace: Literal["together", "free"] = Field(
        "together",
        description="together: all stages are at the same step, but for `window`. free: stages that exchange nothing "
        "with each other train at their own pace, each with checkpoints and a lease of its own, together or in jobs of "
        "their own (`only`), on machines that share nothing but the run folder.",
    )

    @field_validator("only", mode="before")
    @classmethod
    def _names_in_a_row(cls, value: Any) -> Any:
        """Take ``LL3,HL3`` for a list of names."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _replicas(self) -> RunSettings:
        """Refuse replicas and workers that there cannot be."""
        workers, given = self.workers, ", ".join(self.replicas)
        if self.system == "fusion" and given:
            raise InputError(
                f"replicas: {given} with system=fusion, which is one stage; set workers.min and workers.max"
            )
        if self.system != "fusion" and workers != WorkerSettings():
            raise InputError(
                f"workers: min={workers.min} and max={workers.max} with system={self.system}, whose experts are actors "
                "of their own; leave them out, or set replicas.<expert>=<number>"
            )
        if workers.min > workers.max:
            raise InputError(f"workers.min: {workers.min} is above workers.max={workers.max}; give at most that")
        if workers.max > self.batch:
            raise InputError(
                f"workers.max: {workers.max} workers and a batch of {self.batch} images: give at most {self.batch}"
            )
        if self.system == "fusion" and self.executor == "inline" and workers.min > 1:
            raise InputError(f"workers.min: {workers.min} with executor=inline, which is one process; set executor=ray")
        names = [gan.name for gan in self.band_plan().gans]
        for name, count in self.replicas.items():
            if name not in names:
                there = f"there are {', '.join(names)}" if names else "the plan has none"
                raise InputError(f"replicas: no expert is called {name!r}{nearest(name, names)}; {there}")
            if count < 1 or self.batch % count:
                raise InputError(
                    f"replicas.{name}: a batch of {self.batch} images cannot be cut into {count} equal parts: choose a "
                    "number of replicas that divides the batch"
                )
        return self

    @model_validator(mode="after")
    def _paces(self) -> RunSettings:
        """Refuse stages that are to train apart where they cannot, or are not set to."""
        if self.system == "fusion" and self.pace == "free":
            raise InputError(
                "pace: free with system=fusion, which is one stage and has nobody to be ahead of; leave it out"
            )
        for key in ("only", "stage_images") if self.system == "fusion" else ():
            if given := getattr(self, key):
                raise InputError(f"{key}: {', '.join(given)} with system=fusion, which is one stage; leave it out")
        if self.pace == "together":
            for key in ("only", "stage_images"):
                if getattr(self, key):
                    raise InputError(
                        f"{key}: all stages of a run with pace=together are at the same step; set pace=free, or leave "
                        f"{key} out"
                    )
        if self.exchange == "none" and (joint := [part.stages for part in components(self) if len(part.stages) > 1]):
            raise InputError(
                f"exchange: none, and {', '.join(joint[0])} take outputs or feedback of each other in every step: set "
                "image_stage=none teacher_forcing.start=1 teacher_forcing.end=1, and flow.outputs=real"
            )
        chosen_components(self)
        return self

    def by_component(self) -> dict[str, RunSettings]:
        """Return the settings by which each component that ``only`` names is trained, by its name.

        ``run`` is the folder of the component, see :mod:`cluster.run.layout`.
        """
        return {part.name: self.of_component(part) for part in chosen_components(self)}

    def of_component(self, component: Component) -> RunSettings:
        """Return the settings by which one component is trained."""
        run = component_run(self.run, component.name)
        return component_settings(self, component).model_copy(update={"run": run})

    @property
    def last_step(self) -> int:
        """The step at which training ends."""
        steps = -(-self.images // self.batch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def identity(self) -> dict[str, Any]:
        """Return the settings that must not differ when a run is resumed, as plain JSON values."""
        values = self.model_dump(mode="json", exclude=MAY_CHANGE)
        for group, _, key in (name.rpartition(".") for name in MAY_CHANGE if "." in name):
            del values[group][key]
        return values


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ between two nested dictionaries, with (ours, theirs)."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            differing |= differing_keys(mine, other, f"{prefix}{key}.")
        elif mine != other:
            differing[prefix + key] = (mine, other)
    return differing
