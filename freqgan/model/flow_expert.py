"""A flow expert: the velocity field of a band, and what is done with it (sampling, inversion, likelihood).

The student of one is the same network, trained to reach in one step what its teacher reaches in many: whatever is
asked, it makes one step of Euler's method, from noise z to z - v(z, 1).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from freqgan.errors import InputError
from freqgan.model.chain import Chain, Condition
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_noise import noise_image, noise_numbers, rest_length
from freqgan.model.plan import Gan, choice_for
from freqgan.model.probability_flow import (
    Density,
    Velocity,
    exact_probes,
    integrate,
    invert,
    log_density,
    random_probes,
    steps_of,
    time_grid,
    time_of_all,
)
from freqgan.networks.velocity import VelocityCondition, VelocityNetwork, VelocityShape
from freqgan.seeds import generator_for, seeded

EXACT_DIMENSIONS = 64
"""Coefficients of a band up to which its divergence is computed exactly: one pass backwards for each."""

ONE_STEP = GenerationSettings(evaluations=1, solver="euler")


class VelocityPair(nn.Module):
    """The network of a flow expert and, where it has one, its guide: the same network at an earlier age."""

    def __init__(self, network: VelocityNetwork, guide: VelocityNetwork | None) -> None:
        super().__init__()
        self.network, self.guide = network, guide

    def forward(self, x: Tensor, time: Tensor, condition: VelocityCondition) -> Tensor:
        """Return the network's velocities (B, C, h, h) at ``x`` (B, C, h, h) and ``time`` (B,), without the guide."""
        velocity: Tensor = self.network(x, time, condition)
        return velocity


def build_velocity_pair(chain: Chain, gan: Gan) -> VelocityPair:
    """Return the networks of ``gan``, on the CPU, with weights drawn from (run seed, name); a guide has the same.

    A student has no guide: it learns what a guided teacher makes.
    """
    return _build_pair(chain, gan, guided=chain.settings.flow.guide_at > 0 and gan.kind == "flow")


def build_teacher(chain: Chain, student: Gan) -> FlowExpert:
    """Return the flow expert that ``student`` learns of, on the CPU, with weights as at its start."""
    networks = _build_pair(chain, student, guided=chain.settings.flow.guide_at > 0)
    return FlowExpert(chain, replace(student, kind="flow"), networks)


def _build_pair(chain: Chain, gan: Gan, *, guided: bool) -> VelocityPair:
    return VelocityPair(_build_network(chain, gan), _build_network(chain, gan) if guided else None)


def _build_network(chain: Chain, gan: Gan) -> VelocityNetwork:
    settings = chain.settings
    shape = VelocityShape(
        size=chain.gan_size(gan),
        channels=chain.gan_channels(gan),
        base_channels=chain.band_channels(gan.bands[0]) if chain.plan.has_base(gan) else 0,
        condition_channels=chain.condition_channels(gan),
        targets=settings.target_layout,
    )
    sizes = settings.velocity_sizes(gan).model_copy(update={"patch": chain.patch(gan)})
    with seeded(settings.seed, "velocity", gan.name):
        return VelocityNetwork(shape, sizes)


class FlowExpert:
    """Samples bands, finds the noise of given ones, and measures how likely they are, by given weights.

    Args:
        chain: plan, transform and statistics.
        gan: which expert.
        networks: its weights.

    """

    def __init__(self, chain: Chain, gan: Gan, networks: VelocityPair) -> None:
        self.chain, self.gan, self.networks = chain, gan, networks

    # -- noise ---------------------------------------------------------------------------------

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the noise, which are those of the band: (C * bands, h, w)."""
        return self.chain.gan_channels(self.gan), *self.chain.gan_size(self.gan)

    def rest(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the numbers (B, D - n) of the noise beside the vector, a function of the arguments and the name."""
        channels, height, width = self.noise_shape
        count = rest_length(channels, (height, width), self.chain.settings.noise.dimensions)
        rng = generator_for(seed, "rest of noise", self.gan.name, step)
        return torch.randn(batch, count, generator=rng).to(self.chain.device)

    def noise(self, vector: Tensor, rest: Tensor) -> Tensor:
        """Return the starting noise (B, C * bands, h, h) of vectors (B, n) and the rest (B, D - n)."""
        channels, height, width = self.noise_shape
        return noise_image(vector, rest, channels, (height, width))

    def numbers(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors (B, n) and the rest (B, D - n) of starting noise (B, C * bands, h, h)."""
        return noise_numbers(noise, self.chain.settings.noise.dimensions)

    # -- bands ---------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, noise: Tensor, condition: Condition, strength: Tensor, targets: Tensor | None, how: GenerationSettings
    ) -> Tensor:
        """Return bands (B, C * bands, h, h), normalised, as far as the transform keeps them there.

        Args:
            noise: (B, C * bands, h, h), see :meth:`noise`.
            condition: what the expert sees of the bands before it.
            strength: (B,) deviation of the noise on the condition.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.
            how: evaluations, solver, time grid and guidance.

        """
        how = self.possible(how)
        velocity = self.velocity(condition, strength, targets, how)
        return self.chain.projected(self.gan, integrate(velocity, noise, _times(how), how.solver))

    def possible(self, how: GenerationSettings) -> GenerationSettings:
        """Return ``how`` as far as this expert can follow it: a student makes one step, without guidance."""
        return ONE_STEP if self.gan.kind == "student" else how

    @torch.no_grad()
    def encode(
        self, band: Tensor, condition: Condition, strength: Tensor, targets: Tensor | None, how: GenerationSettings
    ) -> Tensor:
        """Return the noise (B, C * bands, h, h) from which :meth:`sample` makes ``band``, of the same shape.

        The other arguments are those of :meth:`sample`: ``strength`` and ``targets`` (B,).

        Raises:
            RunError: a step of the solver is too long to be undone.

        """
        how = self.possible(how)
        velocity = self.velocity(condition, strength, targets, how)
        return invert(velocity, band, _times(how), how.solver)

    def log_likelihood(
        self,
        band: Tensor,
        condition: Condition,
        strength: Tensor,
        targets: Tensor | None,
        *,
        steps: int = 24,
        probes: int = 4,
        seed: int = 0,
    ) -> Density:
        """Return log densities (B,) of normalised bands (B, C * bands, h, h) in nats, without guidance.

        Bands of at most 64 coefficients are computed exactly, others by ``probes`` random ones.

        Args:
            band: (B, C * bands, h, h).
            condition: what the expert sees of the bands before it.
            strength: (B,) deviation of the noise on the condition.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.
            steps: of Heun's method.
            probes: random vectors for the divergence.
            seed: of these.

        Raises:
            InputError: it is a student, whose one step is no flow that has a density.

        """
        if self.gan.kind == "student":
            raise InputError(
                f"{self.gan.name} is a student, and what it makes in one step has no likelihood that can be computed: "
                "measure the run of its teacher"
            )
        plain = GenerationSettings(solver="euler", evaluations=1)
        velocity = self.velocity(condition, strength, targets, plain)
        if band[0].numel() <= EXACT_DIMENSIONS:
            directions = exact_probes(band)
        else:
            directions = random_probes(band, probes, generator_for(seed, "probes", self.gan.name))
        return log_density(velocity, band, steps, directions)

    def velocity(
        self, condition: Condition, strength: Tensor, targets: Tensor | None, how: GenerationSettings
    ) -> Velocity:
        """Return the velocity field for ``strength`` (B,) and ``targets``, guided as ``how`` says."""
        seen = VelocityCondition(condition.base, condition.planes, strength, targets)
        network, guide = self.networks.network, self.networks.guide
        weight = choice_for(self.gan, how.guidance, "generation.guidance") or 0.0

        def field(x: Tensor, time: float | Tensor) -> Tensor:
            times = time_of_all(time, x)
            plain: Tensor = network(x, times, seen)
            guided = plain
            if weight and guide is not None:
                guided = guided + weight * (plain - guide(x, times, seen))
            if how.label_guidance and targets is not None:
                dropped = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
                guided = guided + how.label_guidance * (plain - network(x, times, seen._replace(dropped=dropped)))
            return guided

        return field


def _times(how: GenerationSettings) -> list[float]:
    return time_grid(steps_of(how.evaluations, how.solver), how.shift)
