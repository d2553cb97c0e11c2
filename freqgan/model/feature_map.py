"""From what a network sees of an image to features that are normal: turned, scaled, and bent number by number.

The features of the images that a map was fitted to have principal components of variance 1, each of which is then given
the quantile of the normal distribution that its rank has (inverse normal transform). So normal numbers drawn at random
are features that an image could have. A map is stored with the model, for images that come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from freqgan.errors import InputError

KNOTS = 1024
"""Places at which the distribution of a component is known; between them it is a straight line."""
FAINTEST = 1e-6
"""Components whose variance is a smaller share of the largest are constant, but for rounding: they become 0."""
PARTS = ("mean", "axes", "knots", "quantiles")


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Maps numbers (B, n) that a network has pooled of images to features (B, d).

    Attributes:
        mean: (n,), of the numbers.
        axes: (n, d), what a component takes of each number; 0 where there are fewer components.
        knots: (K, d), sorted values of every component.
        quantiles: (K,), of the normal distribution at the knots.

    """

    mean: Tensor
    axes: Tensor
    knots: Tensor
    quantiles: Tensor

    @property
    def length(self) -> int:
        """The number of features, d."""
        return self.axes.shape[1]

    def __call__(self, numbers: Tensor) -> Tensor:
        """Return float32 features (B, d) of pooled ``numbers`` (B, n); those of no finite number are 0.

        Raises:
            InputError: another count of numbers than the map was fitted to.

        """
        if numbers.ndim != 2 or numbers.shape[1] != len(self.mean):
            raise InputError(
                f"features of shape {tuple(numbers.shape)} do not fit a model that was trained with {len(self.mean)} "
                "numbers an image: give the same conditioning.network"
            )
        components = (numbers.double() - self.mean.double()) @ self.axes.double()
        known = components.isfinite().all(1, keepdim=True)
        columns = components.float().T.contiguous()
        bent = _bent(torch.where(known.T, columns, 0.0), self.knots.T.contiguous(), self.quantiles)
        return torch.where(known, bent.T, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors (...) by the names that they are stored under."""
        return {name: getattr(self, name) for name in PARTS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FeatureMap:
        """Return the map whose :meth:`tensors` (...) these are; InputError where they do not fit each other."""
        there = tensors.keys() == set(PARTS) and all(bool(x.isfinite().all()) for x in tensors.values())
        if there and (axes := tensors["axes"]).ndim == 2:
            parts = cls(**{name: tensors[name].float() for name in PARTS})
            (numbers, length), knots = axes.shape, parts.quantiles.numel()
            shapes = {"mean": (numbers,), "axes": (numbers, length), "knots": (knots, length), "quantiles": (knots,)}
            if knots and {name: tuple(x.shape) for name, x in parts.tensors().items()} == shapes:
                return parts
        raise InputError(
            f"the features in the statistics of a model hold {', '.join(sorted(tensors)) or 'nothing'}, which is no "
            "map of features: the file was damaged"
        )

    @classmethod
    def fitted(cls, numbers: Tensor, length: int) -> FeatureMap:
        """Return the map to ``length`` features that makes those of ``numbers`` (N, n) normal.

        Args:
            numbers: pooled ones; rows that are not finite are left out.
            length: features, the largest principal components.

        Raises:
            InputError: there are fewer than two images, or more features than numbers.

        """
        rows = numbers[numbers.isfinite().all(1)].double()
        if len(rows) < 2 or length > rows.shape[1]:
            raise InputError(
                f"conditioning.features_length: {length} features cannot be had of {len(rows)} images with "
                f"{rows.shape[1]} numbers each; give at least 2 images, and ask for at most {rows.shape[1]} features"
            )
        mean, axes = rows.mean(0), _axes(rows, length)
        components = ((rows - mean.float().double()) @ axes.float().double()).float()
        knots = min(KNOTS, len(rows))
        levels = (torch.arange(knots, dtype=torch.float64) + 0.5) / knots
        places = (levels * len(rows) - 0.5).clamp(0, len(rows) - 1)
        ordered = components.sort(0).values
        low, share = places.floor().long(), (places - places.floor()).float()[:, None]
        high = (low + 1).clamp_max(len(rows) - 1)
        known = torch.lerp(ordered[low], ordered[high], share)
        return cls(mean.float(), axes.float(), known, torch.special.ndtri(levels).float())


def _axes(rows: Tensor, length: int) -> Tensor:
    """Return the largest principal axes (n, ``length``) of ``rows`` (N, n), divided by the deviation along them."""
    centred = rows - rows.mean(0)
    fewer = len(rows) < rows.shape[1]  # then the products of images tell the same, and are a smaller matrix
    products = (centred @ centred.T if fewer else centred.T @ centred) / (len(rows) - 1)
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0)[:length], vectors.flip(1)[:, :length]
    scale = torch.where(values > FAINTEST * values[0].clamp_min(0), values.clamp_min(1e-300).rsqrt(), 0.0)
    if fewer:
        vectors = centred.T @ vectors * scale / (len(rows) - 1) ** 0.5
        missing = length - vectors.shape[1]
        vectors = torch.nn.functional.pad(vectors, (0, missing))
        scale = torch.nn.functional.pad(scale, (0, missing))
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    axes: Tensor = vectors * largest.sign() * scale  # either direction is right; this one is the same everywhere
    return axes


def _bent(values: Tensor, knots: Tensor, quantiles: Tensor) -> Tensor:
    """Return the quantiles (d, B) of ``values`` (d, B) among ``knots`` (d, K); equal knots stand for their middle."""
    left = torch.searchsorted(knots, values)
    right = torch.searchsorted(knots, values, right=True)
    last = knots.shape[1] - 1
    before, behind = (left - 1).clamp(0, last), left.clamp(0, last)
    low, high = knots.gather(1, before), knots.gather(1, behind)
    share = ((values - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1)
    between = torch.lerp(quantiles[before], quantiles[behind], share)
    middle = (quantiles[left.clamp(0, last)] + quantiles[(right - 1).clamp(0, last)]) / 2
    return torch.where(right > left, middle, between)


def nearest_rows(features: Tensor, count: int, pool: Tensor, rows: int = 1024) -> Tensor:
    """Return int32 (N, ``count``) numbers of the nearest rows of ``features`` (N, d) to each, itself first.

    Args:
        features: of all images.
        count: neighbours of each, itself among them; fewer where ``pool`` has fewer, and then repeated.
        pool: (P,) numbers of the rows that may be neighbours.
        rows: how many are compared with the pool at a time.

    """
    others = features[pool].double()
    squares = others.square().sum(1)
    found = []
    wanted = min(count - 1, len(pool) - 1)
    for first in range(0, len(features), rows):
        own = features[first : first + rows].double()
        numbers = torch.arange(first, first + len(own))
        distances = squares - 2 * own @ others.T
        distances[pool[None] == numbers[:, None]] = torch.inf  # itself comes first anyway
        near = pool[distances.topk(wanted, largest=False).indices] if wanted > 0 else torch.empty(len(own), 0)
        columns = torch.cat([numbers[:, None], near.long()], 1)
        found.append(columns[:, torch.arange(count) % columns.shape[1]].int())
    return torch.cat(found)
