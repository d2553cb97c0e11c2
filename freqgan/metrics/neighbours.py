"""Nearest neighbours in feature space: does the candidate lie where real images do, cover them, or copy them?"""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 5
RECALL_NEIGHBOURS = 3
COPY_QUANTILE = 0.02


def neighbour_scores(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return density, coverage, recall, copies and duplicates of (N, d) and (M, d) features.

    * density, coverage (Naeem et al. 2020, k = 5): how many real neighbourhoods a candidate lies in, over k; the
      share of real neighbourhoods that hold a candidate.
    * recall (Kynkaanniemi et al. 2019, k = 3): the share of real points inside some candidate's neighbourhood.
    * copies: the share of candidates nearer to a real image than the nearest 2 % of real images are to one another.
    * duplicates: the same between candidates.
    """
    real_real, fake_fake = _own_distances(reference), _own_distances(candidate)
    cross = _distances(reference, candidate)
    radius = _kth(real_real, NEIGHBOURS)[:, None]
    nearest = torch.quantile(_kth(real_real, 1), COPY_QUANTILE)
    return {
        "density": float((cross < radius).sum(dim=0).double().mean() / NEIGHBOURS),
        "coverage": float((cross < radius).any(dim=1).double().mean()),
        "recall": float((cross < _kth(fake_fake, RECALL_NEIGHBOURS)[None]).any(dim=1).double().mean()),
        "copies": float((cross.amin(dim=0) < nearest).double().mean()),
        "duplicates": float((_kth(fake_fake, 1) < nearest).double().mean()),
    }


def precision_recall(reference: Tensor, candidate: Tensor) -> tuple[float, float]:
    """Return (precision, recall) of (N, d) and (M, d) features by neighbourhoods of k = 3.

    Source: Kynkaanniemi et al. 2019.

    The share of candidates inside some real neighbourhood, and the share of real points inside some candidate's.
    """
    cross = _distances(reference, candidate)
    real, fake = (_kth(_own_distances(x), RECALL_NEIGHBOURS) for x in (reference, candidate))
    inside_real = (cross < real[:, None]).any(dim=0)
    inside_fake = (cross < fake[None]).any(dim=1)
    return float(inside_real.double().mean()), float(inside_fake.double().mean())


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Return distances (N, M) in float64: products in single precision would leave noise where they are near 0."""
    return torch.cdist(first.double(), second.double())


def _own_distances(points: Tensor) -> Tensor:
    """Return distances (N, N), a point being infinitely far from itself."""
    return _distances(points, points).fill_diagonal_(float("inf"))


def _kth(distances: Tensor, k: int) -> Tensor:
    """Return the k-th smallest of every row, (N,); of all there are where there are fewer."""
    return distances.topk(min(k, distances.shape[1] - 1), dim=1, largest=False).values[:, -1]
