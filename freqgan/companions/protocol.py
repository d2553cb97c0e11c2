"""What a companion has: it makes images of noise, and those that no discriminator trains have a loss of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class CompanionLoss(NamedTuple):
    """A loss on real images.

    Attributes:
        value: what is minimised, a scalar.
        metrics: scalars by name, the same names in every step; those of the stage have them as "companion_<name>".

    """

    value: Tensor
    metrics: dict[str, Tensor]


class Companion(nn.Module, ABC):
    """A generator of whole images (B, C, N, N) in [-1, 1], give or take.

    Its state is that of the module, its parameters and buffers. It is trained in float32, in training mode; samples
    are made by a copy with averaged weights in evaluation mode. Nothing in it may draw at random but from what it is
    given: a step that is done again has to give the same bytes.

    Attributes:
        numbers: independent normal numbers that a sample is made from. The noise vector of the model comes first.
        passes: through the network for a sample, about; where it is above 1 the image stage takes samples from a pool.
        is_adversarial: whether it is trained by the gradients of discriminators, through :meth:`sample`, and has no
            loss of its own.

    """

    numbers: int
    passes: float = 1.0
    is_adversarial: bool = False

    @abstractmethod
    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N), a function of the arguments alone.

        Args:
            noise: (B, numbers), from N(0, I).
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.

        """

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the loss on real images, a scalar with its history, and metrics.

        Args:
            images: (B, C, N, N) in [-1, 1].
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.
            rng: on the CPU, of this step; whatever is drawn is drawn from it and then moved to the device.
            progress: the share of all images that was seen before this step, from 0 to 1.

        """
        raise NotImplementedError(f"{type(self).__name__} has no loss of its own: discriminators train it")

    def prepare(self, images: Tensor) -> None:
        """Set what depends on a batch of real images (B, C, N, N) in [-1, 1]; it is called once, before the first step.

        A companion that sets something remembers in a buffer that it has, and does nothing after that.
        """


def group_means(values: Tensor, groups: Tensor, count: int) -> list[Tensor]:
    """Return the mean of ``values`` (B,) in each of ``count`` groups, scalars; ``groups`` (B,) int64, 0 where empty."""
    sums = torch.zeros(count, device=values.device).index_add_(0, groups, values.detach())
    members = torch.zeros(count, device=values.device).index_add_(0, groups, torch.ones_like(values))
    return list((sums / members.clamp_min(1)).unbind())
