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
    """What an update is made from: a loss, its gradients by parameter and by input, and what else is told of it."""

    loss: Tensor
    gradients: list[Tensor]
    to_inputs: list[Tensor]
    metrics: dict[str, Tensor]


class StepUpdates:
    """Those of the networks of one stage at ``step``, of steps done before, of the mean of all replicas' losses.

    Whether one is finite is found, and acted upon, where it is computed: if Python looked, a GPU would wait for it at
    every update. Python looks once, in :meth:`numbers`. After one that is not finite none of the same step is applied.
    """

    def __init__(
        self, settings: ModelSettings, step: int, device: torch.device, share: ReplicaContext = SINGLE
    ) -> None:
        self.settings, self.step, self.share = settings, step, share
        self._finite = torch.ones((), device=device)
        self._made: dict[str, tuple[Tensor, Tensor]] = {}  # whether it and all before were finite, and its loss

    def apply(self, adam: ScheduledAdam, made: Gradients, who: str) -> None:
        """One update of ``adam``; ``who`` is updated, for messages."""
        *gradients, mean_loss = self.share.mean([*made.gradients, made.loss])
        # The largest magnitude of all: one launch for all tensors on a GPU; one for each costs more than the update.
        largest = get_total_norm([mean_loss, *gradients, *made.to_inputs], inf)
        self._finite = torch.minimum(self._finite, largest.isfinite().float())
        adam.update(gradients, self.step * self.settings.batch, 1 - self._finite)
        self._made[who] = self._finite, mean_loss.detach()

    def numbers(self, metrics: Mapping[str, Tensor]) -> Metrics:
        """``metrics``, scalars, as Python's numbers.

        Raises:
            DivergedError: an update was not finite; it and those after it have changed nothing.

        """
        found = to_numbers({**metrics, **{f"{who} finite": finite for who, (finite, _) in self._made.items()}})
        for who, (_, loss) in self._made.items():
            if not found.pop(f"{who} finite"):
                optimiser, gamma = self.settings.optimiser, self.settings.loss.gamma
                raise DivergedError(
                    f"{who}'s loss or gradient is not finite at step {self.step} (loss {float(loss):g}); its weights "
                    f"are unchanged. Run again with a lower optimiser.learning_rate (now {optimiser.learning_rate:g}) "
                    f"or a higher loss.gamma (now {gamma:g})"
                )
        return found
