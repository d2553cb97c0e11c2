"""Distances between two clouds of feature vectors: Frechet between their Gaussians, and a polynomial kernel's."""

from __future__ import annotations

import torch
from torch import Tensor

KERNEL_ROWS = 1_000


def frechet_distance(reference: Tensor, candidate: Tensor) -> float:
    """Return the Frechet distance of (N, d) and (M, d) features, computed in float64.

    It is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), of means m and covariances S.

    The trace of the root is a sum over eigenvalues of a symmetric matrix, so it is real and needs no epsilon, whatever
    the ranks are. Source: Dowson and Landau (1982); Heusel et al. (2017).
    """
    (first, s1), (second, s2) = _gaussian(reference), _gaussian(candidate)
    values, vectors = torch.linalg.eigh(s1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s2 @ root).clamp(min=0).sqrt().sum()
    distance = (first - second).square().sum() + s1.trace() + s2.trace() - 2 * cross
    return max(0.0, float(distance))


def kernel_distance(reference: Tensor, candidate: Tensor) -> float:
    """Return the squared maximum mean discrepancy of (N, d) and (M, d) features, in float64.

    The kernel is (x.y / d + 1)^3.

    The kernel is that of KID (Binkowski et al. 2018). The estimate is the biased one over all samples, never negative:
    an unbiased floor would be as often below zero as above, and a ratio to it would mean nothing.
    """
    x, y = reference.double(), candidate.double()
    return max(0.0, _mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y))


def total_variance(features: Tensor) -> float:
    """Return the trace of the covariance of (N, d) features."""
    return float(features.double().var(dim=0).sum())


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    features = features.double()
    mean = features.mean(dim=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def _mean_kernel(x: Tensor, y: Tensor) -> float:
    total = sum(float(((rows @ y.T / x.shape[1] + 1) ** 3).sum()) for rows in torch.split(x, KERNEL_ROWS))
    return total / (len(x) * len(y))
