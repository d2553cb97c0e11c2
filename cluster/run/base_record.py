"""What a manifest says of the model whose images its own model is shown: where it was, and which one it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.run.checkpoint import Checkpoint
from cluster.run.layout import averages_file
from cluster.storage.folder import open_folder

KEY = "conditioning_run"
"""Of the record in a manifest."""


@dataclass(frozen=True)
class BaseRecord:
    """The model of ``conditioning.run`` as a training found it; nothing of it is copied.

    Attributes:
        run: URL of its folder.
        step: of its newest checkpoint.
        digest: sha256 of its averaged weights and its statistics, which decide its images.

    """

    run: str
    step: int
    digest: str

    @classmethod
    def of(cls, run: str, checkpoint: Checkpoint) -> BaseRecord:
        """Return the record of ``checkpoint``, the newest of ``run``."""
        return cls(open_folder(run).url, checkpoint.step, generator_digest(checkpoint))

    @classmethod
    def in_manifest(cls, manifest: Mapping[str, Any]) -> BaseRecord | None:
        """Return the record that a manifest holds; None where there is none, or none that can be read."""
        try:
            stored = manifest[KEY]
            return cls(str(stored["run"]), int(stored["step"]), str(stored["digest"]))
        except (KeyError, TypeError, ValueError):
            return None

    def entry(self) -> dict[str, Any]:
        """Return what a manifest with this record has more."""
        return {KEY: asdict(self)}


def changed_text(before: BaseRecord, now: BaseRecord) -> str:
    """Return what is told where the model that is there ``now`` is not the one that was there ``before``."""
    return (
        f"conditioning.run: the model of {now.run}, of step {now.step}, is not the one that was there when training "
        f"began, of step {before.step}; its images are shown all the same"
    )


def generator_digest(checkpoint: Checkpoint) -> str:
    """Return the sha256 of what decides a model's images, from the manifest alone: no file is read."""
    names = {averages_file(stage) for stage in checkpoint.stage_steps}
    averages = sorted(r.sha256 for r in checkpoint.records if r.name.rpartition("/")[2] in names)
    if not averages:  # in the older format they are in one file with all the rest
        averages = sorted(r.sha256 for r in checkpoint.records)
    statistics = [r.sha256 for r in checkpoint.records if r.name == checkpoint.statistics_name]
    return hashlib.sha256(" ".join([*averages, *statistics]).encode()).hexdigest()
