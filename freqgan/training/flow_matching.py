"""Flow matching of one band: its training step, a pure function of (state, step, images).

x_t = (1 - t) x_0 + t e goes from the normalised band x_0 at t = 0 to noise e ~ N(0, I) at t = 1; the network is
fitted to e - x_0 at x_t (Lipman et al. 2023), on real bands before it with noise of a strength that it is told
(conditioning augmentation, Ho et al. 2022). With an orthonormal transform the sum of the experts' objectives is that of
one model of all bands, so an expert trains apart from all others and is given nothing by them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import SubImages
from freqgan.model.chain import Chain
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_expert import FlowExpert, build_velocity_pair
from freqgan.model.generators import AVERAGE
from freqgan.model.needs import stages_with_output
from freqgan.model.plan import Gan
from freqgan.model.probability_flow import draw_times
from freqgan.model.settings import ModelSettings
from freqgan.networks.blocks import compressed
from freqgan.networks.generators import pooled
from freqgan.networks.velocity import VelocityCondition
from freqgan.recipe.weight_average import average_decay, update_average
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.seeds import generator_for
from freqgan.sizes import Size
from freqgan.tensor_dicts import State, add_prefix, strip_prefix, tensors_of
from freqgan.training.adam import ScheduledAdam
from freqgan.training.conditions import generated_bands, noisy_bands
from freqgan.training.discriminator_trainer import reduced_precision, to_channels_last
from freqgan.training.stage import Feedback, StepResult
from freqgan.training.updates import Gradients, StepUpdates


class FlowDraws(NamedTuple):
    """What is drawn for the samples of a step.

    Attributes:
        time: (B,) from 0 to 1.
        noise: (B, C * bands, h, h).
        strength: (B,) deviation of the noise on the condition.
        dropped: (B,) bool, samples whose label is not shown.

    """

    time: Tensor
    noise: Tensor
    strength: Tensor
    dropped: Tensor


class FlowMatching:
    """The flow expert of one band, or of several of a level, with everything needed to train it.

    Args:
        chain: plan, transform and statistics on the device to train on.
        gan: which expert.
        replica: whose rows of every batch it is trained on.

    """

    def __init__(self, chain: Chain, gan: Gan, replica: ReplicaContext = SINGLE) -> None:
        self.chain, self.gan, self.name, self.replica = chain, gan, gan.name, replica
        settings, flow = chain.settings, chain.settings.flow
        self.average = build_velocity_pair(chain, gan).to(chain.device).requires_grad_(False)
        to_channels_last(self.average)
        self.network = copy.deepcopy(self.average.network).requires_grad_(True)
        rates = {name: flow.optimiser.generator_rate for name, _ in self.network.named_parameters()}
        self.adam = ScheduledAdam(
            self.network, flow.optimiser, settings.images, multipliers=rates, beta1=flow.optimiser.beta1
        )
        self.expert = FlowExpert(chain, gan, self.average)
        self.gives_output = gan.name in stages_with_output(settings)
        side = flow.crop.get(gan.level, 0)
        self.crop = side if 0 < side < max(chain.gan_size(gan)) else 0

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    def step(
        self,
        step: int,
        images: Tensor,
        targets: Tensor,
        outputs: Mapping[str, Tensor],
        feedback: Feedback | None = None,
    ) -> StepResult:
        """Train on one batch; return a sample where another stage takes one, made by the weights as they were before.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            targets: int64 labels (B,), or (B, K) packed.
            outputs: this step's outputs of the experts before it, by name, whole; for the sample alone.
            feedback: none is taken: no gradient of what it generates reaches a flow expert.

        Raises:
            DivergedError: the loss or a gradient is not finite; the weights are unchanged.

        """
        batch = len(images)
        real_bands = self.chain.real_batch(step, images, self.replica.rows(batch)).sub_images
        output = self._sample(step, targets, outputs) if self.gives_output else None

        draws = self._draws(step, batch)
        condition = self._condition(step, real_bands, targets, draws)
        band = self.chain.stacked(self.gan, real_bands)
        if self.crop:
            band, condition, draws = self._cropped(step, batch, band, condition, draws)

        remedy = f"with a lower flow.optimiser.learning_rate (now {self.settings.flow.optimiser.learning_rate:g})"
        updates = StepUpdates(self.settings, step, self.chain.device, self.replica, remedy)
        gradients = self._gradients(band, condition, draws)
        updates.apply(self.adam, gradients, f"{self.name}: the flow expert")
        numbers = updates.numbers(gradients.metrics)
        self._update_average(step)
        return StepResult(output, self.replica.mean_metrics(numbers))

    def forward(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Raise ValueError for any step and targets (B,): chains with cycles have no flow experts."""
        raise ValueError(f"{self.name} is a flow expert, and those have no earlier passes")

    # -- what a step draws -----------------------------------------------------------------------

    def _draws(self, step: int, batch: int) -> FlowDraws:
        """Return the draws of this replica's rows; all rows are drawn."""
        settings, flow, rows, device = self.settings, self.settings.flow, self.replica.rows(batch), self.chain.device
        rng = generator_for(settings.seed, "flow matching", self.name, step)
        time = draw_times(batch, flow.time_mean, flow.time_deviation, rng)
        strength = flow.condition_noise * torch.rand(batch, generator=rng) * bool(self.gan.seen)
        dropped = torch.rand(batch, generator=rng) < flow.drop
        noise = torch.randn(batch, *self.expert.noise_shape, generator=rng)
        return FlowDraws(*(x[rows].to(device) for x in (time, noise, strength, dropped)))

    def _condition(self, step: int, real_bands: SubImages, targets: Tensor, draws: FlowDraws) -> VelocityCondition:
        """Return what the network sees of real bands, with noise of the drawn strength on them."""
        batch, rows = len(targets), self.replica.rows(len(targets))
        rng = generator_for(self.settings.seed, "condition", self.name, step)
        noisy = noisy_bands(self.gan, real_bands, draws.strength, batch, rows, rng)
        condition = self.chain.condition(self.gan, noisy)
        own_targets = targets[rows].to(self.chain.device) if self.settings.target_layout else None
        dropped = None if self.settings.target_layout.packed else draws.dropped  # what is packed says so itself
        return VelocityCondition(condition.base, condition.planes, draws.strength, own_targets, dropped=dropped)

    def _cropped(
        self, step: int, batch: int, band: Tensor, condition: VelocityCondition, draws: FlowDraws
    ) -> tuple[Tensor, VelocityCondition, FlowDraws]:
        """Return a random crop of every sample, the same of band, noise and condition, on whole cells of the grid."""
        patch = self.chain.patch(self.gan)
        grid, cells = self.chain.gan_grid(self.gan), max(1, self.crop // patch)
        rows, columns = (min(cells, side) for side in grid)
        rng = generator_for(self.settings.seed, "crop", self.name, step)
        corners = _corners((grid[0] - rows + 1, grid[1] - columns + 1), batch, rng)
        places = corners[self.replica.rows(batch)].tolist()

        def cut(x: Tensor, unit: int) -> Tensor:
            height, width = rows * unit, columns * unit
            return torch.stack(
                [
                    image[:, y * unit : y * unit + height, x0 * unit : x0 * unit + width]
                    for image, (y, x0) in zip(x, places, strict=True)
                ]
            )

        whole = None if condition.base is None else pooled(compressed(condition.base))
        return (
            cut(band, patch),
            condition._replace(
                base=None if condition.base is None else cut(condition.base, patch),
                planes=None if condition.planes is None else cut(condition.planes, 1),
                pooled=whole,
            ),
            draws._replace(noise=cut(draws.noise, patch)),
        )

    # -- training --------------------------------------------------------------------------------

    def _gradients(self, band: Tensor, condition: VelocityCondition, draws: FlowDraws) -> Gradients:
        share = draws.time[:, None, None, None]
        noisy = torch.lerp(band, draws.noise, share)
        with reduced_precision(self.settings, noisy.device):
            velocity = self.network(noisy, draws.time, condition)
        loss = functional.mse_loss(velocity.float(), draws.noise - band)
        gradients, _ = self.adam.gradients(loss)
        return Gradients(loss.detach(), gradients, [], {"loss": loss.detach()})

    def _update_average(self, step: int) -> None:
        """Move the average toward the network, and the guide with it until its age."""
        settings, average, seen = self.settings, self.settings.flow.average, step * self.settings.batch
        decay = average_decay(settings.batch, seen, average.halflife_images, average.ramp)
        update_average(self.average.network, self.network, decay)
        if self.average.guide is not None and seen + settings.batch <= settings.flow.guide_at * settings.images:
            update_average(self.average.guide, self.average.network, 0.0)

    # -- samples for other stages ----------------------------------------------------------------

    def _sample(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return bands (B / replicas, C * bands, h, h) that the averaged weights make of this step's noise."""
        settings, batch = self.settings, len(targets)
        rows = self.replica.rows(batch)
        bands = generated_bands(self.chain, step, outputs, batch, rows)
        vectors = self.chain.noise(settings.noise.training, step, batch=batch)[self.chain.plan.index(self.gan)]
        noise = self.expert.noise(vectors, self.expert.rest(settings.seed, step, batch))[rows]
        own_targets = targets[rows].to(self.chain.device) if settings.target_layout else None
        how = GenerationSettings(evaluations=settings.flow.output_evaluations, solver="euler")
        strength = torch.zeros(len(noise), device=self.chain.device)
        return self.expert.sample(noise, self.chain.condition(self.gan, bands), strength, own_targets, how)

    # -- state -----------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.adam.scale = scale

    def state_dict(self) -> State:
        """Return weights, moving average and guide, and the optimiser's moments and counter."""
        return {
            **add_prefix("generator", self.network.state_dict()),
            **add_prefix(AVERAGE, self.average.state_dict()),
            **add_prefix("generator_adam", self.adam.moments()),
            "generator_updates": self.adam.updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.network.load_state_dict(strip_prefix("generator", state))
        self.average.load_state_dict(strip_prefix(AVERAGE, state))
        moments = tensors_of(strip_prefix("generator_adam", state))
        self.adam.load(moments, updates=int(state["generator_updates"]))


def _corners(places: Size, batch: int, rng: torch.Generator) -> Tensor:
    """Return places (B, 2), down and across, each below its number in ``places``."""
    if places[0] == places[1]:
        return torch.randint(places[0], (batch, 2), generator=rng)
    return torch.stack([torch.randint(count, (batch,), generator=rng) for count in places], dim=1)
