"""The image stage of a model without bands whose companion has a loss of its own: it trains that companion alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from freqgan.model.chain import Chain
from freqgan.model.generators import AVERAGE, Blend
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.tensor_dicts import State, add_prefix
from freqgan.training.companion_trainer import CompanionTrainer
from freqgan.training.feature_matching import LoadVgg
from freqgan.training.image_stage import ImageStage, ImageStepResult
from freqgan.training.updates import StepUpdates


class CompanionStage:
    """Trains a companion alone, by its own loss: there is nothing to blend it with, and no discriminator.

    Args:
        chain: of the model, on the device to train on; its plan has no GANs.

    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.name = chain, IMAGE_STAGE
        self.companion_trainer = CompanionTrainer(chain)
        self.blend = Blend(chain)  # not used, and in the state as in that of every image stage

    def step(self, step: int, images: Tensor, targets: Tensor, outputs: Mapping[str, Tensor]) -> ImageStepResult:
        """Train on one batch; makes no images and gives no feedback.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented.
            targets: (B,) int64 labels, or (B, K) packed.
            outputs: none: there are no GANs.

        Raises:
            DivergedError: the loss or a gradient is not finite; the weights are unchanged.

        """
        real = self.chain.real_batch(step, images).images
        own_targets = targets.to(self.chain.device) if self.chain.settings.target_layout else None
        updates = StepUpdates(self.chain.settings, step, self.chain.device)
        numbers = updates.numbers(self.companion_trainer.train(updates, real, own_targets))
        self.companion_trainer.update_average(step)
        return ImageStepResult(None, numbers, {})

    def scale_rate(self, scale: float) -> None:
        """Multiply the learning rate of the settings by ``scale`` from now on."""
        self.companion_trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return the state of the companion, its average and its optimiser."""
        return self.companion_trainer.state_dict() | add_prefix(f"{AVERAGE}.blend", self.blend.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.companion_trainer.load_state_dict(state)


def build_image_stage(
    chain: Chain, capture: GraphCapture | None = None, load_vgg: LoadVgg | None = None
) -> ImageStage | CompanionStage:
    """Return the image stage of ``chain``, as it is at the very start.

    ``capture`` replays computations, and ``load_vgg`` reads the network whose features are matched, if given.
    """
    if chain.plan.gans or chain.settings.image_stage.is_adversarial:
        return ImageStage(chain, capture, load_vgg)
    return CompanionStage(chain)
