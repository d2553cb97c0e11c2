"""A model's folder that ``freqgan export`` wrote, in the place of a run: what makes images takes either."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError
from torch import Tensor

from cluster.run.checkpoint import FORMAT, VALUES, Checkpoint
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError
from freqgan.export.model_folder import CONFIG, WEIGHTS, ModelConfig, read_config, read_settings, read_weights
from freqgan.model.band_statistics import BandStatistics
from freqgan.setting_group import AS_STORED, invalid_values


@dataclass
class ExportedCheckpoint(Checkpoint):
    """The folder of a model as a checkpoint of which nothing but images can be made.

    Attributes:
        config: what the folder says of itself.

    """

    config: ModelConfig = field(kw_only=True)

    @cached_property
    def settings(self) -> RunSettings:
        """The settings that the model is built by, and the folder in place of a run."""
        own = read_settings(self.config, self._path(CONFIG)).model_dump()
        try:
            return RunSettings.model_validate(own | {"run": self.root.url, "data": ""}, context=AS_STORED)
        except ValidationError as error:
            raise InputError(f"{self._path(CONFIG)}: {invalid_values(error)}") from error

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """Return the averaged weights (...) by stage, verified."""
        return self._contents[1]

    def statistics(self) -> BandStatistics:
        """Return the band statistics, verified."""
        return self._contents[0]

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Raise InputError in place of all tensors (...) by stage: a training cannot go on from averages."""
        raise InputError(f"{self.root.url} holds averaged weights alone: name the run that it was exported from")

    @cached_property
    def _contents(self) -> tuple[BandStatistics, dict[str, dict[str, Tensor]]]:
        return read_weights(self.root.read(WEIGHTS), self.config, self._path(WEIGHTS))

    def _path(self, name: str) -> str:
        return f"{self.root.url}/{name}"


def find_exported(url: str) -> ExportedCheckpoint | None:
    """Return the model in the folder ``url``, a path or s3:// URL; None where there is no ``config.json`` in it.

    Raises:
        InputError: the file is damaged or of a newer version.

    """
    folder: Folder = open_folder(url)
    if not folder.exists(CONFIG):
        return None
    config = read_config(folder.read(CONFIG), f"{folder.url}/{CONFIG}")
    training = config.training
    weights = config.weights
    manifest = {
        "format": FORMAT,
        "files": [{"name": WEIGHTS, "size_bytes": weights.size_bytes, "sha256": weights.sha256}],
        "statistics": WEIGHTS,
        "images": training.images,
        "stages": training.steps,
        "data": {"fingerprint": training.data, "classes": list(training.classes), VALUES: training.values},
    }
    return ExportedCheckpoint(max(training.steps.values(), default=0), folder, "", manifest, config=config)
