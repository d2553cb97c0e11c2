"""The training images of a run: which shards, in which order, and the statistics of their bands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.data.decoding import window_of
from cluster.data.quarantine import Quarantine, QuarantinedImage, read_around_damage
from cluster.data.reader import Batch, BatchReader, reader_without
from cluster.data.shard_cache import ShardCache
from cluster.data.shard_index import build_index
from cluster.data.shards import ShardSet
from cluster.data.targets import FeatureTable, TargetReader, check_members, member_fields, needed_members
from cluster.formats.meaning import as_seen, shared_values, size_of
from cluster.run.data_checks import check_first_image, check_labels, check_values
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.storage.timeouts import ReadTimeouts
from freqgan.errors import InputError
from freqgan.model.band_statistics import BandMoments, BandStatistics
from freqgan.model.feature_map import FeatureMap
from freqgan.pixels import from_pixels

STATISTICS_BATCH = 250
TARGET_ROWS = 1024
"""Packed targets that are stored with a model."""
TARGET_NUMBERS = 2**24
"""Most numbers of them in all: 64 MiB."""


@dataclass(frozen=True)
class DataSource:
    """An index of shards and what is needed to read batches from it.

    Attributes:
        settings: of the run.
        index: of its shards.
        quarantine: of a run that is trained; without one the first damage is an error.
        features: of its images, for targets that have such.

    """

    settings: RunSettings
    index: ShardSet
    quarantine: Quarantine | None = None
    features: FeatureTable | None = None

    def reader_factory(self, *, training: bool = True) -> Callable[[], BatchReader]:
        """Return what makes a reader; it can be sent to another process, that has no torch.

        Outside of ``training`` all targets are shown, as they are.
        """
        settings = self.settings
        policy = settings.ingest.model_policy(settings)
        patience = ReadTimeouts(budget_s=settings.storage_timeout_s)
        cache = shard_cache(settings)
        reader_factory = partial(
            BatchReader,
            self.index,
            policy,
            settings.seed,
            settings.ingest,
            patience,
            cache=cache,
            targets=target_reader(settings, training=training, features=self.features),
        )
        if self.quarantine is None:
            return reader_factory
        return partial(
            reader_without, partial(reader_factory, most_damaged=self.quarantine.limit), self.quarantine.left_out
        )

    def ingest(self, *, training: bool = True) -> BatchReader:
        """Return a reader; batches are pure functions of (first image, count)."""
        return self.reader_factory(training=training)()

    def batch(self, ingest: BatchReader, first_image: int, count: int) -> Batch:
        """Return a batch of ``ingest`` without the images that are damaged for good: they go to the quarantine first.

        RunError where they are too many, or where there is no quarantine.
        """
        if self.quarantine is None:
            return ingest.batch(first_image, count)
        return read_around_damage(
            lambda: ingest.batch(first_image, count), lambda images: self.exclude(images, ingest.leave_out)
        )

    def exclude(
        self, images: tuple[QuarantinedImage, ...], leave_out: Callable[[tuple[QuarantinedImage, ...]], None]
    ) -> None:
        """Put damaged ``images`` into the quarantine, then have readers pass over them by ``leave_out``.

        RunError where they are too many; no reader learns of them then.
        """
        if self.quarantine is not None:
            self.quarantine.add(images, self.index.sample_count)
        leave_out(images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of labels 0, 1 ... that the model knows; () where it takes none, or they have none."""
        return self.index.class_names[: self.settings.classes]

    @property
    def values(self) -> dict[str, Any]:
        """What the numbers of the model's images mean, see :mod:`cluster.formats.meaning`; {} where it is not known."""
        settings, shared = self.settings, shared_values(self.index.values.values())
        stored = size_of(shared, self.settings.data)
        window = None if stored is None else window_of(stored, settings.size)
        return as_seen(shared, settings.bit_depth, settings.size, window)

    def fingerprint(self) -> str:
        """Return the sha256 over the names, sizes and samples of the shards: the same for a copy elsewhere.

        What lies beside images counts where it is read.
        """
        total, settings = hashlib.sha256(), self.settings
        members = needed_members(settings.target_layout, settings.conditioning)
        for shard in self.index.shards:
            total.update(_encoded(f"{shard.url.rsplit('/', 1)[-1]} {shard.size_bytes} {len(shard.samples)}\n"))
            for sample in shard.samples:
                beside = member_fields(sample, members) if members else ""
                total.update(_encoded(f"{sample.key} {sample.offset} {sample.size_bytes} {sample.label}{beside}\n"))
        return total.hexdigest()


def _encoded(text: str) -> bytes:
    """Names on a disk and in a tar need not be UTF-8; what is not comes as it was."""
    return text.encode(errors="surrogateescape")


def open_source(settings: RunSettings, quarantine: Quarantine | None = None) -> DataSource:
    """Read the index of ``settings.data``.

    Raises:
        InputError: it has no images, or lacks what targets are made of, or its images are of another kind than those of
            the model, or mean different things.

    """
    if not settings.data:
        raise InputError("data: no shards are named; set data=<folder, glob or s3:// URL of WebDataset shards>")
    index = build_index(settings.data)
    check_labels(settings.classes, index)
    check_values(index, settings.bit_depth)
    check_members(index, settings.target_layout, settings.conditioning)
    check_first_image(index, settings.ingest.model_policy(settings))
    return DataSource(settings, index, quarantine)


def target_reader(
    settings: RunSettings, *, training: bool, features: FeatureTable | None = None
) -> TargetReader | None:
    """Return what reads the targets of images; None where they are labels alone, or nothing."""
    layout = settings.target_layout
    if not layout.packed:
        return None
    return TargetReader(layout, settings.conditioning, settings.seed, training, features)


def sound_batch(ingest: BatchReader, first_image: int, count: int) -> tuple[Batch, tuple[QuarantinedImage, ...]]:
    """Return a batch of a reader that tells damage, and the damaged images, which are not in it nor looked at again.

    For who only looks at images. RunError where all are damaged.
    """
    damaged: list[QuarantinedImage] = []

    def leave_out(images: tuple[QuarantinedImage, ...]) -> None:
        ingest.leave_out(images)
        damaged.extend(images)

    return read_around_damage(lambda: ingest.batch(first_image, count), leave_out), tuple(damaged)


def shard_cache(settings: RunSettings) -> ShardCache | None:
    """Return the one that ``settings`` ask for; InputError where it is not to be on a local disk."""
    if not settings.shard_cache:
        return None
    if "://" in settings.shard_cache:
        raise InputError(f"shard_cache {settings.shard_cache}: copies are kept on a local disk; name a folder there")
    folder = open_folder(settings.shard_cache)
    return ShardCache(Path(folder.url), settings.shard_cache_mib * 2**20)


def measure_statistics(source: DataSource) -> BandStatistics:
    """Return mean and deviation of every band over the first ``statistics_images`` of the training order, in float64.

    Where targets are packed, those of the first 1,024 come with them, and the map of features if they have such.
    """
    settings = source.settings
    transform = settings.band_transform()
    count = min(settings.statistics_images, source.index.sample_count)
    moments, targets = BandMoments(), list[torch.Tensor]()
    with source.ingest(training=False) as ingest:
        for first in range(0, count, STATISTICS_BATCH):
            batch = source.batch(ingest, first, min(STATISTICS_BATCH, count - first))
            pixels = torch.from_numpy(np.array(batch.images, order="C"))
            moments.add(transform.analyse(from_pixels(pixels)))
            targets.append(torch.from_numpy(batch.targets))
    layout = settings.target_layout
    most = min(TARGET_ROWS, max(1, TARGET_NUMBERS // layout.width))
    mapping = None
    if source.features is not None:
        mapping = FeatureMap.from_tensors({name: torch.from_numpy(x) for name, x in source.features.mapping.items()})
    known = torch.cat(targets)[:most] if layout.packed else None
    return replace(moments.finish(), targets=known, feature_map=mapping)
