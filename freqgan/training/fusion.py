"""The jointly trained system: three generators and three discriminators in one stage, one update of each in a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.model.chain import Chain
from freqgan.model.fusion import FusionGenerator, FusionImages
from freqgan.model.fusion_settings import FusionSettings
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE
from freqgan.networks.discriminators import Discriminator
from freqgan.networks.settings import NetworkSettings
from freqgan.recipe.health import deviations
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture, capture_gradients, capture_values
from freqgan.seeds import generator_for, seeded
from freqgan.sizes import Size
from freqgan.tensor_dicts import State, add_prefix, strip_prefix
from freqgan.training.discriminator_trainer import (
    DiscriminatorInput,
    DiscriminatorTrainer,
    reduced_precision,
    unconditional,
)
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.stage import Feedback, StepResult
from freqgan.training.updates import Gradients, StepUpdates

LOW, HIGH = "low", "high"


class FusionInput(NamedTuple):
    """What the images of a step are made from.

    Attributes:
        noise: (B, n).
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        uniform: (B,) in [0, 1): the samples where it is below the auxiliary share are judged by G_l's and G_h's
            outputs themselves.

    """

    noise: Tensor
    targets: Tensor | None
    uniform: Tensor


class JudgedSamples(NamedTuple):
    """What the discriminators judge: whole images (B, C, N, N), low bands (B, C, h, h), high ones (B, C', h', h')."""

    images: Tensor
    low: Tensor
    high: Tensor


class JudgedPair(NamedTuple):
    """Real and generated samples for one discriminator."""

    real: DiscriminatorInput
    fake: DiscriminatorInput


class FusionStage:
    """Trains G_o, G_l, G_h and lambda against D_o, D_l and D_h.

    D_o judges the blended image, D_l and D_h judge its bands. While lambda is small neither of these says anything
    about G_l and G_h: on a part of each batch D_l and D_h judge their outputs themselves, a loss that does not depend
    on lambda and fades out once lambda has grown.

    Args:
        chain: transform, statistics and device.
        replica: whose rows of every batch it is trained on.
        capture: captures the computations of a step to replay them, if given and where there is one replica.

    """

    def __init__(self, chain: Chain, replica: ReplicaContext = SINGLE, capture: GraphCapture | None = None) -> None:
        self.chain, self.name, self.replica = chain, FUSION_STAGE, replica
        self.capture = capture if replica.count == 1 else None
        settings = chain.settings
        generator = FusionGenerator(chain).to(chain.device)
        rate = settings.fusion.lambda_learning_rate / settings.optimiser.learning_rate
        image = self._build_discriminator(
            "image", settings.image_stage.discriminator, settings.size, settings.image_channels
        )
        self.trainer = GanTrainer(
            FUSION_STAGE,
            generator,
            image,
            settings,
            settings.size,
            multipliers={"blend.weight": rate},
            replica=replica,
            capture=self.capture,
        )
        low, low_channels = generator.low_band, chain.band_channels(generator.low_band)
        high_channels = sum(generator.high_channels)
        self.band_trainers = {
            LOW: self._build_trainer(LOW, settings.coarse_discriminator, chain.band_size(low), low_channels),
            HIGH: self._build_trainer(HIGH, settings.band_discriminator, generator.high_size, high_channels),
        }
        self._make_samples = capture_values(self._compute_samples, self.capture)
        self._generator_gradients = capture_gradients(self._compute_generator_gradients, self.capture)

    def _build_discriminator(self, part: str, sizes: NetworkSettings, size: Size, channels: int) -> Discriminator:
        settings = self.settings
        with seeded(settings.seed, "discriminator", f"{FUSION_STAGE} {part}"):
            network = Discriminator(
                size,
                channels,
                condition_channels=0,
                targets=settings.target_layout,
                settings=sizes,
                emphasis=part == HIGH,
            )
        return network.to(self.chain.device)

    def _build_trainer(self, part: str, sizes: NetworkSettings, size: Size, channels: int) -> DiscriminatorTrainer:
        network = self._build_discriminator(part, sizes, size, channels)
        name = f"{FUSION_STAGE} {part}"
        return DiscriminatorTrainer(name, network, self.settings, size, self.replica, self.capture)

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    @property
    def generator(self) -> FusionGenerator:
        """G_o, G_l, G_h and lambda, as trained (not averaged)."""
        assert isinstance(self.trainer.generator, FusionGenerator)
        return self.trainer.generator

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
            outputs: of other stages, of which it takes none.
            feedback: of an image stage, of which it takes none.

        Raises:
            DivergedError: a loss or a gradient is not finite; the weights that it is for are unchanged.

        """
        batch = self.chain.real_batch(step, images, self.replica.rows(len(images)))
        real = self._judged(batch.images, batch.sub_images)

        # Fakes.
        inputs = self._inputs(step, targets)
        fake = self._make_samples(inputs)

        # Discriminators.
        updates = StepUpdates(self.settings, step, self.chain.device, self.replica, self._remedy)
        metrics = self._train_discriminators(updates, real, fake, inputs.targets)

        # Generators and lambda.
        share = self._auxiliary_share()
        gradients = self._generator_gradients(inputs, real, fake)
        self.trainer.update_generator(gradients, updates)
        self.generator.blend.project()
        metrics |= gradients.metrics | deviations(real.images, fake.images)
        metrics |= {"lambda": self.generator.blend.weight.detach().squeeze(), "auxiliary_share": share}
        numbers = updates.numbers(metrics)
        self.trainer.update_average(step)
        return StepResult(None, self.replica.mean_metrics(numbers))

    def forward(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the blended images (B, C, N, N) of this replica's rows at ``step``, and train nothing.

        Args:
            step: number of steps done before this one.
            targets: (B,) int64 labels, or (B, K) packed, of the whole batch.
            outputs: of other stages, of which it takes none.

        """
        with torch.no_grad():
            return self._compute_images(self._inputs(step, targets)).images

    @property
    def _remedy(self) -> str:
        settings = self.settings
        return (
            f"with a lower optimiser.learning_rate (now {settings.optimiser.learning_rate:g}) or "
            f"fusion.lambda_learning_rate (now {settings.fusion.lambda_learning_rate:g})"
        )

    # -- fakes ---------------------------------------------------------------------------------

    def _inputs(self, step: int, targets: Tensor) -> FusionInput:
        """Return this replica's rows of what is drawn for the whole batch."""
        settings, device, batch = self.settings, self.chain.device, len(targets)
        rows = self.replica.rows(batch)
        (noise,) = self.chain.noise(settings.noise.training, step, batch=batch)
        uniform = torch.rand(batch, generator=generator_for(settings.seed, "auxiliary", FUSION_STAGE, step))
        own_targets = targets[rows].to(device) if settings.target_layout else None
        return FusionInput(noise[rows], own_targets, uniform[rows].to(device))

    def _compute_images(self, inputs: FusionInput) -> FusionImages:
        with reduced_precision(self.settings, inputs.noise.device):
            parts = self.generator(inputs.noise, inputs.targets)
        return self.generator.blended(*(part.float() for part in parts))

    def _compute_samples(self, inputs: FusionInput) -> JudgedSamples:
        """Return the blended images and their bands, which are G_l's and G_h's own for the auxiliary samples."""
        made = self._compute_images(inputs)
        sub_images = self.chain.transform.analyse(made.images)
        judged = self._judged(made.images, self.chain.statistics.normalise_all(sub_images))
        own = self._judged(made.images, made.sub_images)
        auxiliary = (inputs.uniform < self._auxiliary_share())[:, None, None, None]
        low, high = (torch.where(auxiliary, own[i], judged[i]) for i in (1, 2))
        return JudgedSamples(made.images, low, high)

    def _judged(self, images: Tensor, sub_images: SubImages) -> JudgedSamples:
        """Return images (B, C, N, N) and their normalised ``sub_images`` as the discriminators see them."""
        generator = self.generator
        return JudgedSamples(images, sub_images[generator.low_band], generator.stacked_high(sub_images))

    def _auxiliary_share(self) -> Tensor:
        """Return the share of the auxiliary samples, a scalar: it depends on lambda, and no gradient is taken of it."""
        return auxiliary_share(self.settings.fusion, self.generator.blend.weight.detach().squeeze())

    # -- discriminators ------------------------------------------------------------------------

    def _train_discriminators(
        self, updates: StepUpdates, real: JudgedSamples, fake: JudgedSamples, targets: Tensor | None
    ) -> dict[str, Tensor]:
        """Update D_l, D_h and D_o, and return metrics: those of D_o, and the losses of the others."""
        images, *bands = _pairs(real, fake, targets)
        metrics = {
            f"loss_d_{part}": trainer.train(pair.real, pair.fake, updates)["loss_d"]
            for (part, trainer), pair in zip(self.band_trainers.items(), bands, strict=True)
        }
        return metrics | self.trainer.train_discriminator(images.real, images.fake, updates)

    # -- generators ----------------------------------------------------------------------------

    def _compute_generator_gradients(self, inputs: FusionInput, real: JudgedSamples, fake: JudgedSamples) -> Gradients:
        """Return the gradients of the sum of the three losses by the weights of the generators and by lambda."""
        if not fake.images.requires_grad:  # a replayed graph gives values alone, without their history
            fake = self._compute_samples(inputs)
        images, *bands = _pairs(real, fake, inputs.targets)
        losses = {"loss_g": self.trainer.generator_loss(images.real, images.fake)}
        for (part, trainer), pair in zip(self.band_trainers.items(), bands, strict=True):
            losses[f"loss_g_{part}"] = trainer.generator_loss(pair.real, pair.fake)
        return self.trainer.generator_gradients(torch.stack([*losses.values()]).sum(), losses)

    # -- state ---------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.trainer.scale_rate(scale)
        for trainer in self.band_trainers.values():
            trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return the state of all networks, averages and optimisers."""
        state = self.trainer.state_dict()
        for part, trainer in self.band_trainers.items():
            state |= add_prefix(part, trainer.state_dict())
        return state

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.trainer.load_state_dict(state)
        for part, trainer in self.band_trainers.items():
            trainer.load_state_dict(strip_prefix(part, state))


def _pairs(real: JudgedSamples, fake: JudgedSamples, targets: Tensor | None) -> list[JudgedPair]:
    """Return what D_o, D_l and D_h judge; ``targets`` are those of the fakes, and stand for real samples too."""
    pairs = zip(real, fake, strict=True)
    return [JudgedPair(unconditional(x, targets), unconditional(y, targets)) for x, y in pairs]


def auxiliary_share(settings: FusionSettings, weight: Tensor) -> Tensor:
    """Return the share of auxiliary samples at lambda ``weight``, both scalars.

    It is ``auxiliary_share`` up to ``fade_begin``, from where it falls linearly to 0 at ``fade_end``.
    """
    left = (settings.fade_end - weight) / (settings.fade_end - settings.fade_begin)
    return settings.auxiliary_share * left.clamp(0, 1)
