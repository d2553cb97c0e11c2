"""Samples of a companion that are made ahead, where one takes many passes through its network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from freqgan.companions.protocol import Companion
from freqgan.model.settings import ModelSettings
from freqgan.seeds import generator_for
from freqgan.tensor_dicts import State, add_prefix, strip_prefix, tensors_of

POOL = "pool"
ROWS = 64
"""Samples that go through a network at a time. Convolutions round by batch, so it is part of the arithmetic."""


class SamplePool:
    """Samples by the averaged weights as they were every so many steps.

    The copy of the weights is state, and so is the number k of the pool; sample i of pool k is made from the noise of
    the seed (run, "pool", k, i). The samples themselves are made when they are first taken: after a resume they are
    made again, to the same bytes.

    Args:
        average: the companion whose weights are copied.
        settings: of the model.
        device: of the samples.

    """

    def __init__(self, average: Companion, settings: ModelSettings, device: torch.device) -> None:
        self.network = copy.deepcopy(average)
        self.settings, self.size, self.device = settings, settings.image_stage.pool.size, device
        self.number = 0
        self._samples: Tensor | None = None
        self._is_filled = False

    def renew(self, step: int, average: Companion) -> None:
        """Copy the weights of ``average``, as they are before ``step``, if a pool begins there."""
        every = self.settings.image_stage.pool.every
        if step % every == 0 and not self._is_filled:
            self.network.load_state_dict(average.state_dict())
            self.number, self._samples = step // every, None

    def fill(self, sample: Tensor) -> None:
        """Have the pool hold ``sample`` (1, C, N, N) alone, for ever: nothing is made, to see what the rest costs."""
        self._samples = sample.expand(self.size, -1, -1, -1)
        self._is_filled = True

    def take(self, step: int, batch: int, labels: Tensor | None) -> Tensor:
        """Return samples (B, C, N, N) at random for ``step``, each of the class wanted, ``labels`` (B,) or None."""
        if self._samples is None:
            self._samples = self._sampled()
        places = torch.rand(batch, generator=generator_for(self.settings.seed, "pool rows", step)).to(self.device)
        if labels is None:
            return self._samples[(places * self.size).long().clamp_max(self.size - 1)]
        classes = self.settings.classes
        members = (self.size - 1 - labels).div(classes, rounding_mode="floor") + 1
        rows = (places * members).long().clamp_max(members - 1) * classes + labels
        return self._samples[rows]

    @torch.no_grad()
    def _sampled(self) -> Tensor:
        labels = torch.arange(self.size, device=self.device) % self.settings.classes if self.settings.classes else None
        parts = []
        for first in range(0, self.size, ROWS):
            rows = range(first, min(first + ROWS, self.size))
            noise = torch.stack([self._noise(i) for i in rows]).to(self.device)
            own_labels = None if labels is None else labels[first : rows.stop]
            parts.append(self.network.sample(noise, own_labels))
        return torch.cat(parts)

    def _noise(self, sample: int) -> Tensor:
        rng = generator_for(self.settings.seed, POOL, self.number, sample)
        return torch.randn(self.network.numbers, generator=rng)

    def state_dict(self) -> State:
        """Return the copy of the weights, and the number of the pool."""
        return {**add_prefix(POOL, self.network.state_dict()), "pool_number": self.number}

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.network.load_state_dict(tensors_of(strip_prefix(POOL, state)))
        self.number, self._samples = int(state["pool_number"]), None
