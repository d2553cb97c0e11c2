"""Several replicas of one stage, each with its own rows of every batch: which rows, and what replicas average.

Every replica draws (noise, augmentation, shares) for all rows of a batch and takes its own rows of the draw after
that, and what a loss takes from the whole batch is put together first, so R replicas of B / R rows do what one of B
rows does, but for the order in which floating-point numbers are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from freqgan.errors import InputError


class ReplicaContext:
    """The place of replica ``index`` among ``count``. A single replica has all rows, and nobody to talk to.

    ``cluster/`` derives the class whose replicas talk to each other.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count

    def rows(self, batch: int) -> slice:
        """Return this replica's rows of a batch of ``batch`` rows, the same number for every replica.

        Raises:
            InputError: the batch cannot be cut into equal parts.

        """
        if batch % self.count:
            raise InputError(
                f"a batch of {batch} images cannot be cut into {self.count} equal parts: choose a batch that is a "
                "multiple of the number of replicas"
            )
        size = batch // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def count_within(self, total: int, batch: int) -> int:
        """Return how many of the first ``total`` rows of a batch are this replica's; they are the first of its own."""
        size = batch // self.count
        return min(max(total - self.index * size, 0), size)

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean over all replicas of each tensor, of any shape (...), with the same bits for every replica.

        Every replica has to call it, with tensors of the same shapes.
        """
        return list(tensors)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor (B, ...) of every replica, in the order of the replicas; every replica has to call it."""
        return [tensor]

    def mean_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of each number over all replicas, which have the same names."""
        if self.count == 1:
            return dict(metrics)
        (values,) = self.mean([torch.tensor(list(metrics.values()), dtype=torch.float64)])
        return dict(zip(metrics, values.tolist(), strict=True))


SINGLE = ReplicaContext()
"""The context of a stage with one replica."""
