"""Which model is to be served: a run's checkpoint, or the version of a retrained model that is in use.

Promotions and roll-backs move ``CURRENT``; whoever asks :meth:`ModelSource.newest` again sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.run.checkpoints import find_checkpoint
from cluster.run.model_record import VersionRecord
from cluster.run.model_registry import ModelRegistry
from freqgan.errors import InputError


@dataclass(frozen=True)
class ModelVersion:
    """One model among those that a name has had.

    Attributes:
        url: of the folder that it is opened from.
        key: differs between any two of them.
        number: of the version of a retrained model; None for a run's checkpoint.
        lineage: what its record says, of a retrained model.

    """

    url: str
    key: str
    number: int | None = None
    lineage: VersionRecord | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of where it comes from; {} for a run's checkpoint."""
        if self.lineage is None:
            return {}
        record = self.lineage
        return {"begins_with": record.begins_with, "finished_at": record.finished_at, "code": record.code}


class ModelSource:
    """A run, or a retrained model: <models>/<name>.

    Args:
        url: of its folder, a path or s3:// URL.

    """

    def __init__(self, url: str) -> None:
        self.url = url

    def is_retrained(self) -> bool:
        """Return whether it is a model of several versions, one of which is in use."""
        return ModelRegistry(self.url).current() is not None

    def newest(self) -> ModelVersion:
        """Return what is to be served now.

        Raises:
            InputError: there is no checkpoint, or a record is damaged.

        """
        registry = ModelRegistry(self.url)
        current = registry.current()
        if current is None:
            return self._newest_checkpoint(registry)
        version = registry.version(current.number)
        return ModelVersion(version.folder.url, f"version {version.number}", version.number, version.record)

    def _newest_checkpoint(self, registry: ModelRegistry) -> ModelVersion:
        if registry.numbers():
            raise InputError(
                f"{self.url} has versions, and none of them is in use: promote one with `freqgan models promote`"
            )
        checkpoint = find_checkpoint(self.url)
        return ModelVersion(self.url, f"step {checkpoint.step} of {checkpoint.attempt}")
