"""The order of the samples without those that are excluded.

It is a pure function of which samples are excluded, and from which position on each of them is.

Every sample comes once an epoch. One that is left out from a position of the order on is missing there, and at its
place in every later epoch.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.data.sampler import BlockShuffle
from freqgan.errors import RunError


class ExclusionList:
    """Which positions of an order are passed over; not for several threads at once."""

    def __init__(self, order: BlockShuffle) -> None:
        self._order = order
        self._since: dict[tuple[int, int], int] = {}
        self._epochs: dict[int, frozenset[int]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, samples: Iterable[tuple[int, int, int]]) -> None:
        """Skip every (shard number, sample number) from the first position on at which it was found."""
        for shard, sample, position in samples:
            self._since[shard, sample] = min(position, self._since.get((shard, sample), position))
        self._epochs.clear()
        if len(self._since) >= self._order.sample_count:
            raise RunError(f"all {self._order.sample_count} images are damaged: restore the shards")

    def passes_over(self, position: int) -> bool:
        """Return whether the sample at ``position`` is left out there."""
        return bool(self._since) and position in self._passed(position // self._order.sample_count)

    def position_of(self, number: int) -> int:
        """Return the position of the order at which sample ``number`` (from 0) of those that are given out lies."""
        total, first, left = self._order.sample_count, 0, number
        for missing, epoch in enumerate(sorted(position // total for position in self._since.values())):
            present = (epoch - first) * (total - missing)
            if left < present:
                return self._within(first, left, total - missing)
            first, left = epoch, left - present
        return self._within(first, left, total - len(self._since))

    def _within(self, first_epoch: int, number: int, samples: int) -> int:
        """Return the position of sample ``number`` since the start of ``first_epoch``.

        Every epoch has so many ``samples``.
        """
        epoch = first_epoch + number // samples
        position = epoch * self._order.sample_count + number % samples
        for passed in sorted(self._passed(epoch)):
            if passed > position:
                break
            position += 1
        return position

    def _passed(self, epoch: int) -> frozenset[int]:
        """Return the positions of ``epoch`` that are passed over; kept for two epochs."""
        if epoch not in self._epochs:
            total = self._order.sample_count
            self._epochs = dict([*self._epochs.items()][-1:])
            self._epochs[epoch] = frozenset(
                since if since // total == epoch else self._order.position_of(epoch, *sample)
                for sample, since in self._since.items()
                if since // total <= epoch
            )
        return self._epochs[epoch]
