"""All metrics at once: value, floor (real against other real images, equally many) and their ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from freqgan.errors import InputError
from freqgan.metrics.bands import cross_band_distance, packet_distances
from freqgan.metrics.catalogue import FAMILIES, FEWEST
from freqgan.metrics.features import random_features, whitened
from freqgan.metrics.frechet import frechet_distance, kernel_distance
from freqgan.metrics.inception import Extractor, inception_scores
from freqgan.metrics.neighbours import neighbour_scores
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.metrics.spectrum import spectrum_distance
from freqgan.metrics.temporal import time_distances
from freqgan.metrics.two_sample_test import critic_scores
from freqgan.model.clips import one_frame_each

MOST_NEIGHBOURS = 5_000
FRECHET_FAINTEST, KERNEL_FAINTEST = 1.0, 0.1
"""Measured on CIFAR-10, 3,000 images: floors vary by 7 and 20 % from split to split (raw features: by factors of 2 and
4), and half the classes stand out by 2.4 and 4.4 (raw: 2.9 and 3.7)."""

_known_features: Any = WeakTensorKeyDictionary()
"""Of images that are in memory: their version, which counts changes, and their features."""


@dataclass(frozen=True)
class Score:
    """``value`` of the candidate, ``floor`` of real images in its place, ``ratio`` = value / floor.

    A floor of 0 has no ratio (None).
    """

    value: float
    floor: float

    @property
    def ratio(self) -> float | None:
        """The value over the floor; None where the floor is 0."""
        return self.value / self.floor if self.floor else None


@dataclass(frozen=True)
class Measure:
    """One family of metrics.

    ``run`` takes reference and candidate images, uint8 (N, C, H, W), and gives values by what is added to the family's
    name with a dot; the value of "" has the name of the family itself. ``weights`` is a digest of the weights that it
    uses, "" where it always gives the same for the same images, None where nobody knows.
    """

    name: str
    sees: str
    run: Callable[[Tensor, Tensor], dict[str, float]]
    weights: str | None = ""


def _single_value(distance: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], dict[str, float]]:
    return lambda reference, candidate: {"": distance(reference, candidate)}


def _on_features(
    distance: Callable[[Tensor, Tensor], float], faintest: float
) -> Callable[[Tensor, Tensor], dict[str, float]]:
    def between_features(reference: Tensor, candidate: Tensor) -> float:
        return distance(*whitened(_features(reference), _features(candidate), faintest))

    return _single_value(between_features)


def _features(images: Tensor) -> Tensor:
    """Return :func:`random_features` of ``images``, computed once for as long as these are there and do not change.

    Three families look at them, and every candidate is compared with the same reference.
    """
    version, features = _known_features.get(images, (-1, None))
    if version != images._version:
        features = random_features(images)
        _known_features[images] = images._version, features
    return torch.as_tensor(features)


def _neighbours(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    first, second = (_features(images)[:MOST_NEIGHBOURS] for images in (reference, candidate))
    scores = neighbour_scores(first, second)
    return {f".{name}": value for name, value in scores.items()}


MEASURES = (
    Measure("packet_frechet", FAMILIES["packet_frechet"], packet_distances),
    Measure("cross_band_frechet", FAMILIES["cross_band_frechet"], _single_value(cross_band_distance)),
    Measure("critic_accuracy", FAMILIES["critic_accuracy"], critic_scores),
    Measure("sliced_wasserstein", FAMILIES["sliced_wasserstein"], sliced_wasserstein),
    Measure("spectrum_db", FAMILIES["spectrum_db"], _single_value(spectrum_distance)),
    Measure("feature_frechet", FAMILIES["feature_frechet"], _on_features(frechet_distance, FRECHET_FAINTEST)),
    Measure("feature_kernel", FAMILIES["feature_kernel"], _on_features(kernel_distance, KERNEL_FAINTEST)),
    Measure("neighbours", FAMILIES["neighbours"], _neighbours),
)


def inception_measure(extract: Extractor) -> Measure:
    """Return FID and its relatives on the features of ``extract``, as one more family of metrics."""

    def run(reference: Tensor, candidate: Tensor) -> dict[str, float]:
        scores = inception_scores(extract(reference), extract(candidate))
        return {f".{name}": value for name, value in scores.items()}

    return Measure("inception", "what images show, as far as its network sees it", run, None)


def measure(
    reference: Tensor,
    candidate: Tensor,
    *,
    note: Callable[[str], None] = lambda _: None,
    extra: Sequence[Measure] = (),
    frames: int = 1,
) -> dict[str, float]:
    """Return every metric of ``candidate`` against ``reference`` by name.

    Args:
        reference: real images, uint8 (N, C, H, W), or clips (N, T C, H, W).
        candidate: the images in question; other real ones give the floors of all metrics.
        note: called with the name of each family of metrics before it is computed.
        extra: families beside those that are always measured.
        frames: T of clips: those of images are then measured on one frame of each, see :func:`one_frame_each`, and
            those of clips, of motion, come with them.

    Raises:
        InputError: the two differ in size or channels, there are too few images, or the real ones are all the same.

    """
    shapes = {tuple(images.shape[1:]) for images in (reference, candidate)}
    if len(shapes) > 1:
        raise InputError(f"images of different shapes (channels, height, width) cannot be compared: {sorted(shapes)}")
    fewest = min(len(images) for images in (reference, candidate))
    if fewest < FEWEST:
        raise InputError(f"{fewest} images are too few to measure anything: at least {FEWEST} of each kind are needed")
    if is_one_picture(reference):
        raise InputError(f"the {len(reference)} real images are all the same picture: give different ones")
    values: dict[str, float] = {}
    stills = one_frame_each(reference, frames), one_frame_each(candidate, frames)
    jobs = [(family, stills) for family in (*MEASURES, *extra)]
    if frames > 1:
        jobs += [(family, (reference, candidate)) for family in clip_measures(frames)]
    for family, (first, second) in jobs:
        note(family.name)
        for suffix, value in family.run(first, second).items():
            joint = suffix if suffix.startswith(".") or not suffix else f".{suffix}"
            values[family.name + joint] = value
    return values


def clip_measures(frames: int) -> tuple[Measure, ...]:
    """Return the families of metrics of clips of ``frames`` frames."""
    return tuple(Measure(name, FAMILIES[name], run) for name, run in time_distances(frames).items())


def is_one_picture(images: Tensor) -> bool:
    """Return whether all of ``images`` (N, C, H, W) are equal.

    Distances are relative to how real images differ, and mean nothing where these do not. Generated images may all be
    equal: a generator that has collapsed is to get the scores it deserves.
    """
    return bool((images == images[:1]).all())


def scored(values: Mapping[str, float], floors: Mapping[str, float]) -> dict[str, Score]:
    """Return values of a candidate beside those of other real images, both from :func:`measure`."""
    return {name: Score(value, floors[name]) for name, value in values.items()}


def evaluate(
    reference: Tensor,
    other_real: Tensor,
    candidate: Tensor,
    *,
    note: Callable[[str], None] = lambda _: None,
    extra: Sequence[Measure] = (),
    frames: int = 1,
) -> dict[str, Score]:
    """Return every metric of ``candidate`` beside its floor, that of ``other_real``, both against ``reference``.

    All are uint8 (N, C, H, W); ``other_real`` are real images that are not in ``reference``. Errors and the other
    arguments are those of :func:`measure`.
    """
    values = measure(reference, candidate, note=note, extra=extra, frames=frames)
    return scored(values, measure(reference, other_real, extra=extra, frames=frames))
