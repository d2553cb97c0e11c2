"""The order of the samples: a pure function of (seed, epoch, position).

Positions count samples since the start of training; epochs follow each other, each a new
permutation with every sample once. Shards are permuted, ``block_shards`` consecutive ones form a
block, and samples are permuted within their block: so storage is read shard by shard, whole, and
at most two blocks are held. Nothing depends on how many readers there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freqgan.errors import InputError
from freqgan.seeds import derive_seed

Indices = NDArray[np.int64]


def permutation(count: int, *seed_parts: int | str) -> Indices:
    """Return a permutation of 0..count-1 that is a pure function of its arguments.

    It sorts raw PCG64 output, whose stream NumPy promises never to change; ``Generator.permutation``
    has no such promise, and an upgrade between two restarts would then mix two orders.
    """
    draws = np.random.PCG64(derive_seed(*seed_parts)).random_raw(count)
    return np.argsort(draws, kind="stable")


@dataclass(frozen=True)
class _Epoch:
    """The shards of one epoch in order, and at which of its positions each block starts; last, its end."""

    number: int
    shards: Indices
    block_starts: Indices


@dataclass(frozen=True)
class _Block:
    """Positions [start, stop) and, for each of them, the shard and the sample in it."""

    start: int
    stop: int
    shards: Indices
    samples: Indices


class BlockShuffle:
    """Where the sample at each position lies; not for several threads at once.

    Args:
        shard_sample_counts: samples of each shard, in the order of the index.
        seed: the run's seed.
        shuffle: False keeps the order of the index in every epoch.
        block_shards: shards whose samples are mixed; more mix better and hold more on the machine.
    """

    def __init__(
        self, shard_sample_counts: Sequence[int], seed: int, shuffle: bool = True, block_shards: int = 4
    ) -> None:
        self._counts = np.asarray(shard_sample_counts, dtype=np.int64)
        self._seed, self._shuffle, self._block_shards = seed, shuffle, block_shards
        self.sample_count = int(self._counts.sum())
        if self.sample_count < 1 or self._counts.min() < 0:
            raise InputError(f"{len(self._counts)} shards hold {self.sample_count} samples: at least one is needed")
        if block_shards < 1:
            raise InputError(f"shuffle_shards is {block_shards}: at least 1 shard must be read at a time")
        self._epochs: dict[int, _Epoch] = {}
        self._block: _Block | None = None

    def locate(self, position: int) -> tuple[int, int]:
        """Return (shard number, sample number in that shard) of the sample at ``position`` >= 0."""
        block = self._block
        if block is None or not block.start <= position < block.stop:
            block = self._block = self._make_block(position)
        return int(block.shards[position - block.start]), int(block.samples[position - block.start])

    def block_of(self, position: int) -> tuple[int, ...]:
        """Return numbers of the shards that are read around ``position``, in order."""
        epoch, index = self._find_block(position)
        return tuple(self._shards_of(epoch, index).tolist())

    def block_end(self, position: int) -> int:
        """Return the first position behind the block of ``position``; ``block_of`` it is what to fetch next."""
        epoch, index = self._find_block(position)
        return epoch.number * self.sample_count + int(epoch.block_starts[index + 1])

    def position_of(self, epoch: int, shard: int, sample: int) -> int:
        """Return where a sample of a shard comes in ``epoch`` (from 0): the inverse of :meth:`locate`."""
        shards = self._epoch_at(epoch)
        index = int(np.flatnonzero(shards.shards == shard)[0]) // self._block_shards
        block = self._make_block(epoch * self.sample_count + int(shards.block_starts[index]))
        return block.start + int(np.flatnonzero((block.shards == shard) & (block.samples == sample))[0])

    def _find_block(self, position: int) -> tuple[_Epoch, int]:
        if position < 0:
            raise InputError(f"position {position} lies before the first sample: positions count from 0")
        epoch = self._epoch_at(position // self.sample_count)
        return epoch, int(np.searchsorted(epoch.block_starts, position % self.sample_count, side="right")) - 1

    def _shards_of(self, epoch: _Epoch, index: int) -> Indices:
        return epoch.shards[index * self._block_shards : (index + 1) * self._block_shards]

    def _make_block(self, position: int) -> _Block:
        epoch, index = self._find_block(position)
        pairs = self._samples_of(self._shards_of(epoch, index))
        if self._shuffle:
            pairs = pairs[permutation(len(pairs), self._seed, "samples", epoch.number, index)]
        start = epoch.number * self.sample_count + int(epoch.block_starts[index])
        return _Block(start, start + len(pairs), pairs[:, 0], pairs[:, 1])

    def _samples_of(self, shards: Indices) -> Indices:
        """Return shard and sample number (samples, 2) of all samples of ``shards``, in their order."""
        counts = self._counts[shards]
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([np.repeat(shards, counts), np.arange(counts.sum()) - firsts], axis=1)

    def _epoch_at(self, number: int) -> _Epoch:
        """Return the order of epoch ``number``; two are remembered, for at the end of one every call asks for both."""
        if number not in self._epochs:
            count = len(self._counts)
            shards = permutation(count, self._seed, "shards", number) if self._shuffle else np.arange(count)
            ends = np.cumsum(self._counts[shards])
            inner = ends[self._block_shards - 1 : -1 : self._block_shards]
            self._epochs = dict([*self._epochs.items()][-1:])
            self._epochs[number] = _Epoch(number, shards, np.concatenate([[0], inner, ends[-1:]]))
        return self._epochs[number]
