"""Distances of images by features that a network has learnt on real images of the same kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from torch import Tensor

from freqgan.metrics.catalogue import FAMILIES
from freqgan.metrics.evaluation import MOST_NEIGHBOURS, Measure, Score
from freqgan.metrics.feature_network import LearnedFeatures
from freqgan.metrics.frechet import frechet_distance, kernel_distance
from freqgan.metrics.neighbours import neighbour_scores, precision_recall


def learned_scores(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return the distances of learned features (N, d) and (M, d), each of deviation 1 over real images.

    * frechet: :func:`learned_frechet`.
    * kernel: :func:`freqgan.metrics.frechet.kernel_distance`.
    * precision (k = 3) and what :func:`freqgan.metrics.neighbours.neighbour_scores` gives, of at most 5,000 each.
    """
    first, second = (features[:MOST_NEIGHBOURS] for features in (reference, candidate))
    return {
        "frechet": learned_frechet(reference, candidate),
        "kernel": kernel_distance(reference, candidate),
        "precision": precision_recall(first, second)[0],
        **neighbour_scores(first, second),
    }


def learned_frechet(reference: Tensor, candidate: Tensor) -> float:
    """Return the Frechet distance of learned features (N, d) and (M, d) between Gaussians, over d.

    1 is about as far as two real images are from each other.
    """
    return frechet_distance(reference, candidate) / reference.shape[1]


def frechet_to(reference: Tensor, learned: LearnedFeatures) -> Callable[[Tensor], float]:
    """Return what gives the :func:`learned_frechet` of images to ``reference``, uint8 (N, C, H, W) both."""
    features = learned.network.features
    known = features(reference)
    return lambda images: learned_frechet(known, features(images))


def learned_measure(learned: LearnedFeatures) -> Measure:
    """Return the distances on the features of ``learned``, as one more family of metrics."""

    def run(reference: Tensor, candidate: Tensor) -> dict[str, float]:
        features = learned.network.features
        return {f".{name}": value for name, value in learned_scores(features(reference), features(candidate)).items()}

    return Measure(learned.name, FAMILIES[learned.name], run, weights_digest(learned))


def accuracy_scores(learned: LearnedFeatures) -> dict[str, Score]:
    """Return how good the network is at what it learnt, by a name that says what that is.

    The value is its accuracy on real images held out from it, the floor what guessing would have right.
    """
    return {f"{learned.name}.{learned.task}_accuracy": Score(learned.accuracy, learned.chance)}


def weights_digest(learned: LearnedFeatures) -> str:
    """Return the sha256 of the name and all weights: what the values of its metrics depend on beside the images."""
    digest = hashlib.sha256(learned.name.encode())
    for name, tensor in sorted(learned.network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
