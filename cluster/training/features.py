"""The features that a training shows with its images, before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cluster.evaluation.image_features import FeatureJob, Numbers, Pooling, image_features
from cluster.execution.callbacks import TrainingCallback
from cluster.run.data_source import DataSource
from cluster.run.settings import RunSettings
from cluster.run.teacher import has_students, open_teacher
from freqgan.model.band_statistics import BandStatistics


def with_features(
    source: DataSource, callback: TrainingCallback, address: str | None, statistics: BandStatistics | None
) -> DataSource:
    """Return ``source`` with the features of its images, where targets have such; else as it is.

    Args:
        source: the data of a run.
        callback: is told of what takes time.
        address: of the Ray cluster that computes them, if the run uses one.
        statistics: of the model that goes on training, whose map of features is kept; None of a new one.

    Raises:
        InputError: too few images, or weights of the network that cannot be read.

    """
    settings = source.settings
    if not settings.conditioning.shows("features"):
        return source
    if statistics is None and has_students(settings):
        statistics = open_teacher(settings).statistics()
    mapping = None if statistics is None else statistics.feature_map
    pooling = _by_tasks(settings, address) if settings.executor == "ray" else None
    return replace(source, features=image_features(settings, source.index, callback.on_prepare, pooling, mapping))


def _by_tasks(settings: RunSettings, address: str | None) -> Pooling:
    from cluster.ray_engine.feature_tasks import pooled_by_tasks  # only here: importing Ray takes a second

    def pooling(job: FeatureJob) -> Iterator[Numbers]:
        return pooled_by_tasks(job, settings, address)

    return pooling
