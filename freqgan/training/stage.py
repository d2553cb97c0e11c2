"""What every stage of bands has in common: what it is given, what it returns, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from freqgan.model.chain import Chain
from freqgan.tensor_dicts import Metrics, Stateful


class StepResult(NamedTuple):
    """The result of a step of an expert.

    Attributes:
        output: (B, C * bands, h, h), the chain's sub-images of this step, normalised; None where no stage takes them.
        metrics: plain numbers.

    """

    output: Tensor | None
    metrics: Metrics


class Feedback(NamedTuple):
    """The gradient of the image stage's losses by this band's output at an earlier step, and what that step had.

    Attributes:
        step: the earlier step.
        targets: (B,) int64 labels, or (B, K) packed, of the whole batch.
        outputs: those of other GANs that the step was given.
        output: (B / replicas, C * bands, h, h), what the band gave for its own rows of the batch.
        gradient: (B, C * bands, h, h), of the mean loss, for all rows.

    """

    step: int
    targets: Tensor
    outputs: Mapping[str, Tensor]
    output: Tensor
    gradient: Tensor


class BandExpert(Stateful, Protocol):
    """Whatever trains to generate one band, or several of a level: a GAN, or a flow expert.

    What it needs of other stages is in :mod:`freqgan.model.needs`; ``name`` is that of the plan.
    """

    name: str
    chain: Chain

    def step(
        self,
        step: int,
        images: Tensor,
        targets: Tensor,
        outputs: Mapping[str, Tensor],
        feedback: Feedback | None = None,
    ) -> StepResult:
        """Train on one batch, as a pure function of (state, step, inputs).

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            targets: int64 labels (B,), or (B, K) packed.
            outputs: this step's outputs of the stages it needs, by name, whole.
            feedback: of the image stage, if it needs that.

        """

    def forward(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the output (B, C * bands, h, h) of an earlier pass of a chain with cycles, and train nothing."""

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
