"""The flow of a Gaussian's exact velocity field: its samples, its density and its inverse are known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from freqgan.errors import RunError
from freqgan.model.expert_settings import Solver
from freqgan.model.probability_flow import (
    exact_probes,
    integrate,
    invert,
    log_density,
    random_probes,
    steps_of,
    time_grid,
)
from tests.support.gaussians import Gaussian

SHAPE = (2, 3, 3)
DIMENSIONS = math.prod(SHAPE)


def gaussian(seed: int = 0) -> Gaussian:
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.eye(DIMENSIONS, dtype=torch.float64)
    mixing += 0.1 * torch.randn(DIMENSIONS, DIMENSIONS, generator=rng, dtype=torch.float64)
    mean = 0.3 * torch.randn(DIMENSIONS, generator=rng, dtype=torch.float64)
    return Gaussian(mean, mixing @ mixing.mT)


def points(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_field_of_a_gaussian_is_the_mean_of_noise_less_data() -> None:
    """The oracle of this file by an oracle of its own: the regression of e - x_0 on x_t over 400,000 pairs."""
    data, time = gaussian(), 0.4
    clean, noise = data.sample(400_000), points(400_000, seed=7).flatten(1)
    mixed = (1 - time) * clean + time * noise
    design = torch.cat([mixed, torch.ones(len(mixed), 1, dtype=torch.float64)], dim=1)
    fitted = torch.linalg.lstsq(design, noise - clean).solution
    where = data.sample(50, seed=3)
    expected = data.velocity_at(where, time)
    found = torch.cat([where, torch.ones(50, 1, dtype=torch.float64)], dim=1) @ fitted
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_noise_is_taken_to_the_mean_and_covariance_of_the_data(solver: Solver) -> None:
    """The map of a Gaussian is affine, so what it does to zero and to a basis says mean and covariance exactly."""
    data, steps = gaussian(), 400
    basis = torch.cat([torch.zeros(1, DIMENSIONS), torch.eye(DIMENSIONS)]).double().view(-1, *SHAPE)
    out = integrate(data.velocity(), basis, time_grid(steps, 1.0), solver).flatten(1)
    matrix = (out[1:] - out[0]).mT
    error = 1e-3 if solver == "heun" else 2e-2  # of second order, and of first
    torch.testing.assert_close(out[0], data.mean, atol=error, rtol=0)
    torch.testing.assert_close(matrix @ matrix.mT, data.covariance, atol=error * float(data.covariance.max()), rtol=0)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_errors_fall_with_the_order_of_the_solver(solver: Solver, order: int) -> None:
    field, noise = gaussian().velocity(), points(8)
    exact = integrate(field, noise, time_grid(2000, 1.0), "heun")
    errors = [float((integrate(field, noise, time_grid(n, 1.0), solver) - exact).norm()) for n in (20, 40, 80)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.4)


def test_densities_are_those_of_the_gaussian() -> None:
    data = gaussian()
    x = data.sample(32, seed=2).view(-1, *SHAPE)
    found = log_density(data.velocity(), x, 100, exact_probes(x))
    torch.testing.assert_close(found.nats, data.log_density(x.flatten(1)), atol=1e-3, rtol=0)
    there = integrate(data.velocity(), found.noise, time_grid(400, 1.0), "heun")
    torch.testing.assert_close(there, x, atol=1e-3, rtol=0)


def test_random_probes_are_unbiased() -> None:
    """Within five standard errors of the exact density, and the standard error is small enough to tell."""
    data = gaussian()
    x = data.sample(1, seed=4).view(1, *SHAPE).expand(2000, *SHAPE).contiguous()
    found = log_density(data.velocity(), x, 40, random_probes(x, 1, torch.Generator().manual_seed(0))).nats
    exact = log_density(data.velocity(), x[:1], 40, exact_probes(x[:1])).nats
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.1
    assert abs(float(found.mean() - exact)) < 5 * error


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 20), ("heun", 4), ("euler", 20), ("euler", 4)])
def test_inversion_undoes_the_steps_themselves(solver: Solver, evaluations: int, shift: float) -> None:
    """Also where few steps are far from the exact flow; in float32, as models are."""
    field, noise = gaussian().velocity(), points(16).float()
    times = time_grid(steps_of(evaluations, solver), shift)
    data = integrate(field, noise, times, solver)
    torch.testing.assert_close(invert(field, data, times, solver), noise, atol=1e-3, rtol=0)


def test_a_step_that_cannot_be_undone_says_what_to_change() -> None:
    def folding(x: Tensor, time: float) -> Tensor:  # takes all points to zero: nothing says where from
        return x if time == 1 else torch.zeros_like(x)

    with pytest.raises(RunError, match=r"from time 1.000 to 0.000 .* could not be undone .* give more evaluations"):
        invert(folding, points(2), [1.0, 0.0], "euler")


def test_time_grids_hold_both_ends_and_fall() -> None:
    for steps in (1, 2, 7):
        for shift in (0.3, 1.0, 4.0):
            times = time_grid(steps, shift)
            assert (len(times), times[-1]) == (steps + 1, 0.0)
            assert times[0] == pytest.approx(1.0, abs=1e-12)
            assert times == sorted(times, reverse=True)
    assert time_grid(4, 1.0) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(4, 3.0)[2] == pytest.approx(0.75)  # closer together near the noise
    assert [steps_of(n, "heun") for n in (1, 2, 20)] == [1, 1, 10]
    assert [steps_of(n, "euler") for n in (1, 2, 20)] == [1, 2, 20]
