"""The ordinary differential equation of a velocity field: from noise to data, from data to noise, and its density.

Time goes from 0 (data) to 1 (noise): dx/dt = v(x, t), with x at time 1 from N(0, I) (Lipman et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from freqgan.errors import RunError
from freqgan.model.expert_settings import Solver

Velocity = Callable[[Tensor, Any], Tensor]
"""Gives the velocities (B, C, h, h) at points (B, C, h, h) and one time for all, a float; in a graph a tensor ()."""

MOST_ITERATIONS = 200
INVERSE_TOLERANCE = 1e-6


class Density(NamedTuple):
    """Log densities (B,) in nats, and the noises (B, C, h, h) that the points come from."""

    nats: Tensor
    noise: Tensor


def time_grid(steps: int, shift: float) -> list[float]:
    """Return ``steps`` + 1 times from 1 to 0, both included: s u / (1 + (s - 1) u) for u evenly spaced, s = shift."""
    even = [1 - i / steps for i in range(steps + 1)]
    return [shift * u / (1 + (shift - 1) * u) for u in even]


def draw_times(batch: int, mean: float, deviation: float, rng: torch.Generator) -> Tensor:
    """Return times (B,) for training, whose logits have ``mean`` and ``deviation`` (Esser et al. 2024).

    There is one in each of B equal parts of their distribution: less variance than that of B independent ones.
    """
    places = (torch.randperm(batch, generator=rng) + torch.rand(batch, generator=rng)) / batch
    normal = torch.special.ndtri(places.double().clamp(1e-6, 1 - 1e-6)).float()
    return torch.sigmoid(mean + deviation * normal)


def time_of_all(time: float | Tensor, x: Tensor) -> Tensor:
    """Return one ``time`` for all of x (B, ...), as (B,)."""
    count = x.shape[0]
    return time.expand(count) if isinstance(time, Tensor) else torch.full((count,), time, device=x.device)


def steps_of(evaluations: int, solver: Solver) -> int:
    """Return how many steps of ``solver`` take ``evaluations`` passes through the network; at least one."""
    return max(1, evaluations // 2 if solver == "heun" else evaluations)


def integrate(velocity: Velocity, x: Tensor, times: Iterable[float], solver: Solver) -> Tensor:
    """Return where points (B, C, h, h) are at the last of ``times`` that are ``x`` at the first."""
    steps = [_Step(begin, end, end - begin, 0.5 * (end - begin)) for begin, end in pairwise(times)]
    if torch.compiler.is_exporting():
        return _integrate_in_a_loop(velocity, x, steps, solver)
    for step in steps:
        x = x + _increment(velocity, x, step, solver)
    return x


class _Step(NamedTuple):
    """From one time to another; the numbers are floats, or tensors () in a graph."""

    begin: Any
    end: Any
    length: Any
    half: Any


def _increment(velocity: Velocity, x: Tensor, step: _Step, solver: Solver) -> Tensor:
    first = velocity(x, step.begin)
    if solver == "euler":
        return cast(Tensor, step.length * first)
    second = velocity(x + step.length * first, step.end)
    return cast(Tensor, step.half * (first + second))


def _integrate_in_a_loop(velocity: Velocity, x: Tensor, steps: Sequence[_Step], solver: Solver) -> Tensor:
    """Do what :func:`integrate` does, so that an exported graph has one step of it and not all."""
    # There is no other name for it: torch exports it as a loop of the runtime.
    from torch._higher_order_ops.scan import scan

    def body(x: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        after = x + _increment(velocity, x, _Step(*row.unbind()), solver)
        return after, after.new_zeros(1)

    rows = torch.tensor(steps, dtype=torch.float64).float().to(x.device)
    end, _ = scan(body, x, rows, dim=0)
    return cast(Tensor, end)


def invert(velocity: Velocity, x: Tensor, times: Iterable[float], solver: Solver) -> Tensor:
    """Return the points (B, C, h, h) that :func:`integrate` takes to ``x``, step by step, to 1e-6 of their size.

    A step y = x + f(x) is undone by the fixed-point iteration x <- y - f(x), mixed with the one before (Anderson 1965),
    not by integrating backwards, whose error is that of the step.

    Raises:
        RunError: an iteration does not converge; the message names the time.

    """
    for begin, end in reversed(list(pairwise(times))):
        x = _undo(velocity, x, begin, end, solver)
    return x


def _undo(velocity: Velocity, y: Tensor, begin: float, end: float, solver: Solver) -> Tensor:
    step = _Step(begin, end, end - begin, 0.5 * (end - begin))
    x = y - _increment(velocity, y, step, solver)
    last_x = last_rest = None
    for _ in range(MOST_ITERATIONS):
        rest = y - _increment(velocity, x, step, solver) - x
        size = rest.flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp(min=1e-12)
        if bool((size < INVERSE_TOLERANCE).all()):
            return x + rest
        if last_x is None or last_rest is None:
            following = x + rest
        else:
            change = (rest - last_rest).flatten(1)
            share = (rest.flatten(1) * change).sum(1) / change.square().sum(1).clamp(min=1e-30)
            share = share.clamp(-3, 3)[:, None, None, None]
            following = x + rest - share * (x - last_x + rest - last_rest)
        last_x, last_rest, x = x, rest, following
    raise RunError(
        f"the step from time {begin:.3f} to {end:.3f} of a flow expert could not be undone in {MOST_ITERATIONS} "
        f"iterations (rest {float(size.max()):.2g}): give more evaluations, which makes steps shorter"
    )


def log_density(velocity: Velocity, x: Tensor, steps: int, probes: Tensor) -> Density:
    """Return the log densities of points ``x`` (B, C, h, h) under the flow, by Heun's method over ``steps`` even steps.

    log p(x) = log N(x_1) + integral of the divergence of v along the way (Chen et al. 2018). The divergence is the mean
    of e^T (dv/dx) e over ``probes`` e (P, B, C, h, h): with signs at random it is unbiased (Hutchinson 1990), with a
    basis times the root of its dimension it is exact, see :func:`exact_probes`.
    """
    total = torch.zeros(len(x), device=x.device, dtype=x.dtype)
    for begin, end in pairwise(i / steps for i in range(steps + 1)):
        first, divergence = _with_divergence(velocity, x, begin, probes)
        second, further = _with_divergence(velocity, x + (end - begin) * first, end, probes)
        x = x + 0.5 * (end - begin) * (first + second)
        total = total + 0.5 * (end - begin) * (divergence + further)
    dimensions = x[0].numel()
    normal = -0.5 * x.flatten(1).square().sum(1) - 0.5 * dimensions * math.log(2 * math.pi)
    return Density(normal + total, x)


def random_probes(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return signs at random (count, B, C, h, h) for points ``x`` (B, C, h, h)."""
    signs = torch.randint(2, (count, *x.shape), generator=generator)
    return (2 * signs - 1).to(x)


def exact_probes(x: Tensor) -> Tensor:
    """Return probes (D, B, C, h, h) with which the divergence at ``x`` (B, C, h, h) is exact, D = C h h."""
    dimensions = x[0].numel()
    basis = math.sqrt(dimensions) * torch.eye(dimensions, device=x.device, dtype=x.dtype)
    return basis.view(dimensions, 1, *x.shape[1:]).expand(-1, len(x), *x.shape[1:])


def _with_divergence(velocity: Velocity, x: Tensor, time: float, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the velocities (B, C, h, h) at ``x`` and their divergences (B,)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = velocity(leaf, time)
        divergence = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for i, probe in enumerate(probes):
            last = i == len(probes) - 1
            (product,) = torch.autograd.grad(value, leaf, probe, retain_graph=not last)
            divergence = divergence + (product * probe).flatten(1).sum(1)
    return value.detach(), divergence / len(probes)
