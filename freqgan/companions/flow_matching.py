"""Flow matching of whole images: a velocity field from noise to images (Lipman et al. 2023).

x_t = (1 - t) x_0 + t e, and the network is fitted to e - x_0, as in the flow experts of bands. Images are doubled: in
[-2, 2] natural ones have a deviation of about 1, for which the network is scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.companions.diffusion import GROUPS, SCALE
from freqgan.companions.protocol import Companion, CompanionLoss, group_means
from freqgan.model.flow_noise import noise_image
from freqgan.model.probability_flow import draw_times, integrate, steps_of, time_grid, time_of_all
from freqgan.model.settings import ModelSettings
from freqgan.networks.velocity import VelocityCondition, VelocityNetwork, VelocityShape
from freqgan.sizes import area


class FlowMatchingNetwork(Companion):
    """The velocity network of flow experts on whole images; a sample follows it from noise at time 1 to time 0."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        stage = settings.image_stage
        self.settings = stage.flow_matching
        self.channels, self.size = settings.image_channels, settings.size
        self.numbers = self.channels * area(self.size)
        self.passes = stage.flow_matching.evaluations
        shape = VelocityShape(self.size, self.channels, 0, 0, settings.target_layout)
        self.network = VelocityNetwork(shape, stage.unet)

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, C N N), whose first numbers are its lowest frequencies."""
        x = noise_image(noise, noise[:, :0], self.channels, self.size)

        def velocity(x: Tensor, time: float | Tensor) -> Tensor:
            return self._velocity(x, time_of_all(time, x), targets)

        how = self.settings
        times = time_grid(steps_of(how.evaluations, how.solver), shift=1.0)
        return integrate(velocity, x, times, how.solver) / SCALE

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the mean squared error of velocities, a scalar; metrics are its means by noise level, least first."""
        times = draw_times(len(images), self.settings.time_mean, self.settings.time_deviation, rng).to(images.device)
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        start = SCALE * images
        x = torch.lerp(start, noise, times[:, None, None, None])
        errors = (self._velocity(x, times, targets) - (noise - start)).square().flatten(1).mean(1)
        by_level = group_means(errors, (times * GROUPS).long().clamp_max(GROUPS - 1), GROUPS)
        return CompanionLoss(errors.mean(), {f"noise_{i + 1}": value for i, value in enumerate(by_level)})

    def _velocity(self, x: Tensor, times: Tensor, targets: Tensor | None) -> Tensor:
        condition = VelocityCondition(None, None, torch.zeros(x.shape[0], device=x.device), targets)
        velocity: Tensor = self.network(x, times, condition)
        return velocity
