"""The updates of one step: one that is not finite changes no weight, and the numbers of all are fetched once."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from freqgan.errors import DivergedError
from freqgan.model.settings import ModelSettings
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.tensor_dicts import Metrics, to_numbers
from freqgan.training.adam import ScheduledAdam


class Gradients(NamedTuple):
    """A loss and its gradients, from which an update is made.

    Attributes:
        loss: a scalar.
        gradients: by parameter, in the order of the network's parameters, of their shapes.
        to_inputs: by the inputs that were asked for, of their shapes.
        metrics: scalars that were computed on the way.

    """

    loss: Tensor
    gradients: list[Tensor]
    to_inputs: list[Tensor]
    metrics: dict[str, Tensor]


class StepUpdates:
    """The updates of the networks of one stage in one step, by the mean of all replicas' losses.

    Whether an update is finite is computed, and acted upon, on its device: if Python looked, a GPU would wait for it at
    every update. Python looks once, in :meth:`numbers`. After one that is not finite none of the same step is applied.

    Args:
        settings: of the model.
        step: the number of steps before this one.
        device: of the networks.
        replica: whose gradients are averaged with those of the others.
        remedy: what to do where an update is not finite, as the end of a sentence; of GANs where not given.

    """

    def __init__(
        self,
        settings: ModelSettings,
        step: int,
        device: torch.device,
        replica: ReplicaContext = SINGLE,
        remedy: str = "",
    ) -> None:
        self.settings, self.step, self.replica = settings, step, replica
        self._remedy = remedy or (
            f"with a lower optimiser.learning_rate (now {settings.optimiser.learning_rate:g}) or a higher loss.gamma "
            f"(now {settings.loss.gamma:g})"
        )
        self._finite = torch.ones((), device=device)
        self._losses: dict[str, tuple[Tensor, Tensor]] = {}  # whether it and all before were finite, and its loss
        self._remedies: dict[str, str] = {}

    def apply(self, adam: ScheduledAdam, gradients: Gradients, label: str, remedy: str = "") -> None:
        """Update the network of ``adam``, which messages call ``label``, with a ``remedy`` of its own if it has one."""
        *means, mean_loss = self.replica.mean([*gradients.gradients, gradients.loss])
        # The largest magnitude of all: one launch for all tensors on a GPU; one for each costs more than the update.
        largest = get_total_norm([mean_loss, *means, *gradients.to_inputs], inf)
        self._finite = torch.minimum(self._finite, largest.isfinite().float())
        adam.update(means, self.step * self.settings.batch, 1 - self._finite)
        self._losses[label] = self._finite, mean_loss.detach()
        self._remedies[label] = remedy or self._remedy

    def numbers(self, metrics: Mapping[str, Tensor]) -> Metrics:
        """Return ``metrics``, scalars of shape (), as numbers of Python.

        Raises:
            DivergedError: an update was not finite; it and those after it have changed nothing.

        """
        flags = {f"{label} finite": finite for label, (finite, _) in self._losses.items()}
        numbers = to_numbers({**metrics, **flags})
        for label, (_, loss) in self._losses.items():
            if not numbers.pop(f"{label} finite"):
                raise DivergedError(
                    f"{label}'s loss or gradient is not finite at step {self.step} (loss {float(loss):g}); its weights "
                    f"are unchanged. Run again {self._remedies[label]}"
                )
        return numbers
