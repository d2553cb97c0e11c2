"""Gaussians as oracles of flows: their densities and velocity fields in closed form, and images that follow one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from freqgan.bands import Band
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.flow_expert import VelocityPair
from freqgan.model.plan import Gan
from freqgan.model.probability_flow import Velocity
from freqgan.model.settings import ModelSettings
from freqgan.networks.velocity import VelocityCondition
from freqgan.tensor_dicts import tensors_of
from tests.support.flows import flow_settings, flow_stages

SIDE = 8
PIXEL_DEVIATION = 0.15
"""Of pixels in [-1, 1]: one in 10^10 lies outside."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, covariance) over D numbers, float64; ``mean`` may be one for each sample, (B, D)."""

    mean: Tensor
    covariance: Tensor

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.covariance)

    @property
    def entropy(self) -> float:
        """The mean of -log p, nats."""
        return float(0.5 * (self.dimensions * math.log(2 * math.pi * math.e) + torch.logdet(self.covariance)))

    def log_density(self, x: Tensor) -> Tensor:
        """log p (B,) of points (B, D)."""
        rest = torch.linalg.solve_triangular(torch.linalg.cholesky(self.covariance), (x - self.mean).mT, upper=False)
        constant = self.dimensions * math.log(2 * math.pi) + torch.logdet(self.covariance)
        density: Tensor = -0.5 * (rest.square().sum(0) + constant)
        return density

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Points (count, D)."""
        normal = torch.randn(count, self.dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        points: Tensor = self.mean + normal @ torch.linalg.cholesky(self.covariance).mT
        return points

    def velocity_at(self, x: Tensor, time: float) -> Tensor:
        """E[e - x_0 | x_t = x] (B, D) for x_t = (1 - t) x_0 + t e: the field that flow matching is to learn."""
        share, identity = 1 - time, torch.eye(self.dimensions, dtype=torch.float64)
        spread = share**2 * self.covariance + time**2 * identity
        gain: Tensor = torch.linalg.solve(spread, time * identity - share * self.covariance)
        velocities: Tensor = (x - share * self.mean) @ gain.mT - self.mean
        return velocities

    def velocity(self) -> Velocity:
        """The same for points of any shape, in their precision."""

        def field(x: Tensor, time: float) -> Tensor:
            return self.velocity_at(x.flatten(1).double(), time).view_as(x).to(x.dtype)

        return field

    def marginal(self, chosen: Tensor) -> Gaussian:
        """Of the coordinates ``chosen`` (K,) int64."""
        return Gaussian(self.mean[..., chosen], self.covariance[chosen][:, chosen])

    def conditional(self, chosen: Tensor, known: Tensor, values: Tensor) -> Gaussian:
        """Of the coordinates ``chosen`` where those of ``known`` have ``values`` (B, len(known))."""
        if not len(known):
            return self.marginal(chosen)
        across = self.covariance[chosen][:, known]
        gain = torch.linalg.solve(self.covariance[known][:, known], across.mT).mT
        mean = self.mean[chosen] + (values - self.mean[known]) @ gain.mT
        return Gaussian(mean, self.covariance[chosen][:, chosen] - gain @ across.mT)


def image_gaussian(deviation: float = PIXEL_DEVIATION) -> Gaussian:
    """Grey images of 8 x 8 pixels with stripes along a diagonal, which ties the bands of one level to each other."""
    rows, columns = (
        x.flatten().double() for x in torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    )
    down, right = rows[:, None] - rows, columns[:, None] - columns
    covariance = torch.exp(-((right - down).abs() + (right + down).abs() / 4) / 1.5)
    return Gaussian(torch.full((SIDE**2,), 0.05, dtype=torch.float64), deviation**2 * covariance)


class GaussianToy:
    """A chain of four flow experts over images of :func:`image_gaussian`, with exact statistics and velocities."""

    def __init__(self, **changes: object) -> None:
        self.images = image_gaussian()
        toy = {"image_size": SIDE, "channels": 1, "bit_depth": 16, "noise": {"dimensions": 16}}
        self.settings: ModelSettings = flow_settings(**(toy | {"augmentation": {"flip": False}} | changes))
        self.statistics, self.bands = self._normalised()
        self.chain = Chain(self.settings, self.statistics, torch.device("cpu"))

    def _normalised(self) -> tuple[BandStatistics, Gaussian]:
        """The statistics of the bands, and the Gaussian of all normalised coefficients in the order of the chain."""
        transform = self.settings.band_transform()
        order = [Band(1, orientation) for orientation in transform.orientations(1)]
        basis = transform.analyse(torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE))
        rows = torch.cat([basis[band].flatten(1).mT for band in order])
        mean, covariance = rows @ self.images.mean, rows @ self.images.covariance @ rows.mT
        parts = torch.arange(len(mean)).chunk(len(order))
        means = {band: mean[part].mean().float()[None] for band, part in zip(order, parts, strict=True)}
        stds = {
            band: covariance.diagonal()[part].mean().sqrt().float()[None]
            for band, part in zip(order, parts, strict=True)
        }
        scale = torch.cat([stds[band].double().expand(len(parts[0])) for band in order])
        shift = torch.cat([means[band].double().expand(len(parts[0])) for band in order])
        return BandStatistics(means, stds), Gaussian((mean - shift) / scale, covariance / scale / scale[:, None])

    @property
    def joint_nats(self) -> float:
        """Entropy of the images of pixels in [-1, 1]."""
        return self.images.entropy

    @property
    def mutual_information(self) -> float:
        """What the bands tell of each other: the sum of their entropies less that of all together, nats."""
        parts = torch.arange(self.bands.dimensions).chunk(4)
        return sum(self.bands.marginal(part).entropy for part in parts) - self.bands.entropy

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """Images (count, 1, 8, 8), float32, not rounded to pixels."""
        return self.images.sample(count, seed).float().view(-1, 1, SIDE, SIDE)

    def exact_model(self) -> Synthesiser:
        """The model whose experts have the exact velocities."""
        states = {stage.name: tensors_of(stage.state_dict()) for stage in flow_stages(self.chain)}
        model = Synthesiser(self.settings, self.statistics, states)
        for gan in model.chain.plan.gans:
            model.flows[gan.name].networks = VelocityPair(ExactVelocity(self, gan), None)  # type: ignore[arg-type]
        return model


class ExactVelocity(nn.Module):
    """Takes the place of the network of an expert: the field of its band given the bands that it sees."""

    def __init__(self, toy: GaussianToy, gan: Gan) -> None:
        super().__init__()
        parts = dict(zip(("LL", "HL", "LH", "HH"), torch.arange(toy.bands.dimensions).chunk(4), strict=True))
        self.bands, self.own = toy.bands, parts[gan.orientations[0]]
        self.known = torch.cat([torch.empty(0, dtype=torch.int64), *(parts[band.orientation] for band in gan.seen)])

    def forward(self, x: Tensor, time: Tensor, condition: VelocityCondition) -> Tensor:
        """Velocities at ``x`` (B, 1, 4, 4); the planes of the condition are asinh of the bands before, in order."""
        planes = torch.empty(len(x), 0) if condition.planes is None else condition.planes.flatten(1)
        band = self.bands.conditional(self.own, self.known, planes.double().sinh())
        return band.velocity_at(x.flatten(1).double(), float(time[0])).view_as(x).to(x.dtype)
