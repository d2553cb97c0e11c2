"""Several replicas of one stage, each working on its own rows of every batch: which rows, and what they put together.

The batch's draws (noise, augmentation, shares) are made for all rows by every replica and cut after that, and what a
loss takes from the whole batch is put together first, so R replicas of B / R rows do what one of B rows does, but for
the order in which floating-point numbers are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from freqgan.errors import InputError


class ReplicaContext:
    """The rows of replica ``index`` of ``count``; one replica has all of them, and nobody to talk to.

    ``cluster/`` has the one that talks to others.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count

    def rows(self, batch: int) -> slice:
        """Its rows of a batch, the same number for every replica; InputError where it cannot be cut evenly."""
        if batch % self.count:
            raise InputError(
                f"a batch of {batch} images cannot be cut into {self.count} equal parts: choose a batch that is a "
                "multiple of the number of replicas"
            )
        size = batch // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def before(self, total: int, batch: int) -> int:
        """How many of the first ``total`` rows of a batch are among its own; they are its first."""
        size = batch // self.count
        return min(max(total - self.index * size, 0), size)

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean over all replicas of each tensor, the same bits for everyone; every replica has to call it."""
        return list(tensors)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every replica, in their order; every replica has to call it."""
        return [tensor]

    def mean_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The mean of each number over all replicas, which have the same names."""
        if self.count == 1:
            return dict(metrics)
        (values,) = self.mean([torch.tensor(list(metrics.values()), dtype=torch.float64)])
        return dict(zip(metrics, values.tolist(), strict=True))


SINGLE = ReplicaContext()
