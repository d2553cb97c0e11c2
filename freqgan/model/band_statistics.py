"""Mean and standard deviation of every band and channel: measured once, frozen, stored with the model.

Natural-image bands differ in scale by a factor of ten and more; networks see them normalised, so that
one learning rate and one penalty strength suit all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from freqgan.bands import Band, SubImages, parse_band
from freqgan.errors import InputError
from freqgan.model.feature_map import FeatureMap
from freqgan.tensor_dicts import add_prefix, strip_prefix

TARGETS = "targets"
FEATURES = "features"
STD_FLOOR = 1e-5
"""The least standard deviation, for pixels in [-1, 1]: about what rounding to 16 bits leaves (2 / 65535 / sqrt 12).

A band that varies less is constant (HH of flat drawings, the colour bands of grey images). Divided by the floor it
stays near 0 whatever float32 rounding adds to it, and what a generator puts there stays invisible.
"""


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """Mean and standard deviation (C,) float32 of each band; immutable, the methods return new tensors.

    ``targets`` are some of the training images' packed targets (n, K), of a model that has such: what a target may be,
    and how its numbers are distributed. ``feature_map`` gives the features of images, of a model that is shown such.
    """

    means: dict[Band, Tensor]
    stds: dict[Band, Tensor]
    targets: Tensor | None = None
    feature_map: FeatureMap | None = None

    def normalise(self, band: Band, x: Tensor) -> Tensor:
        """Return (x - mean) / std for x (B, C, h, w), at least float32.

        Raises:
            InputError: there are no statistics of ``band``, or for another number of channels.

        """
        mean, std = self._of(band, x)
        return (x - mean) / std

    def denormalise(self, band: Band, x: Tensor) -> Tensor:
        """Return x std + mean for x (B, C, h, w), the inverse of :meth:`normalise`, with the same errors."""
        mean, std = self._of(band, x)
        return x * std + mean

    def normalise_all(self, sub_images: SubImages) -> SubImages:
        """Return every sub-image (B, C, h, w) normalised by the statistics of its band."""
        return {band: self.normalise(band, x) for band, x in sub_images.items()}

    def denormalise_all(self, sub_images: SubImages) -> SubImages:
        """Return the inverse of :meth:`normalise_all`, of the same shapes (B, C, h, w)."""
        return {band: self.denormalise(band, x) for band, x in sub_images.items()}

    def to(self, device: torch.device | str) -> BandStatistics:
        """Return the same statistics on ``device``."""
        means = {band: mean.to(device) for band, mean in self.means.items()}
        stds = {band: std.to(device) for band, std in self.stds.items()}
        targets = None if self.targets is None else self.targets.to(device)
        return BandStatistics(means, stds, targets, self.feature_map)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors (C,) by the names that they are stored under ("HL1.mean"), and "targets" (n, K).

        Those of the map of features follow, "features.mean" and so on.
        """
        means = {f"{band}.mean": mean for band, mean in self.means.items()}
        stds = {f"{band}.std": std for band, std in self.stds.items()}
        targets = {} if self.targets is None else {TARGETS: self.targets}
        features = {} if self.feature_map is None else add_prefix(FEATURES, self.feature_map.tensors())
        return means | stds | targets | features

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> BandStatistics:
        """Return the statistics whose :meth:`tensors`, (C,) each but for targets (n, K), are ``tensors``.

        Raises:
            InputError: a name that is not of this form, a mean without its std, shapes that differ,
                a value that is not finite, or a std that is not positive.

        """
        parts: dict[str, dict[Band, Tensor]] = {"mean": {}, "std": {}}
        for name, tensor in tensors.items():
            if name == TARGETS or name.startswith(f"{FEATURES}."):
                continue
            band, part = _parse_name(name)
            parts[part][band] = tensor.float()
        for band in sorted(parts["mean"].keys() | parts["std"].keys()):
            _check_band(band, parts["mean"].get(band), parts["std"].get(band))
        targets = tensors.get(TARGETS)
        if targets is not None and (targets.ndim != 2 or not len(targets) or not bool(targets.isfinite().all())):
            raise InputError(
                f"the targets in the statistics of a model, of shape {tuple(targets.shape)}, are no finite rows: the "
                "file was damaged"
            )
        features = strip_prefix(FEATURES, tensors)
        return cls(parts["mean"], parts["std"], targets, FeatureMap.from_tensors(features) if features else None)

    def _of(self, band: Band, x: Tensor) -> tuple[Tensor, Tensor]:
        if band not in self.means:
            known = ", ".join(map(str, self.means))
            raise InputError(
                f"there are no statistics of band {band}, only of {known}: use as many levels as the model"
            )
        mean = self.means[band]
        if x.shape[1] != len(mean):  # one channel would be broadcast without a word
            raise InputError(
                f"band {band} has {x.shape[1]} channels, but its statistics were measured on {len(mean)}: "
                "use images with as many channels as the model was trained on"
            )
        return mean[:, None, None], self.stds[band][:, None, None]


class BandMoments:
    """Running count, sum and sum of squares per band and channel, in float64 on the device of the sub-images.

    float64 leaves the variance about 1e-16 mean^2 / variance of relative error, however many images are added.
    """

    def __init__(self) -> None:
        self._counts: dict[Band, int] = {}
        self._sums: dict[Band, Tensor] = {}
        self._squares: dict[Band, Tensor] = {}

    def add(self, sub_images: SubImages) -> None:
        """Count in one batch: sub-images (B, C, h, w) of any floating dtype; bands may come in separate calls."""
        for band, x in sub_images.items():
            values = x.detach().double()
            self._counts[band] = self._counts.get(band, 0) + values[:, :1].numel()
            self._sums[band] = self._sums.get(band, 0) + values.sum(dim=(0, 2, 3))
            self._squares[band] = self._squares.get(band, 0) + values.square().sum(dim=(0, 2, 3))

    def finish(self) -> BandStatistics:
        """Return mean and (population) standard deviation of all that was added; a std is never below STD_FLOOR.

        Raises:
            InputError: nothing was added, or a value was not finite.

        """
        if not any(self._counts.values()):
            raise InputError("the statistics of the bands need at least one image, but none was read: check data")
        means, stds = {}, {}
        for band, count in self._counts.items():
            mean = self._sums[band] / count
            variance = (self._squares[band] / count - mean.square()).clamp_min(0.0)  # rounding may leave -1e-17
            means[band], stds[band] = mean.float(), variance.sqrt().float().clamp_min(STD_FLOOR)
            _check_band(band, means[band], stds[band])
        return BandStatistics(means, stds)


def _parse_name(name: str) -> tuple[Band, str]:
    """Return (HL1, "mean") for "HL1.mean"."""
    band, _, part = name.rpartition(".")
    try:
        if part in ("mean", "std"):
            return parse_band(band), part
    except ValueError as error:
        raise InputError(f"{name!r} in the statistics of a model: {error}") from error
    raise InputError(f"{name!r} in the statistics of a model: expected a name such as HL1.mean or HL1.std")


def _check_band(band: Band, mean: Tensor | None, std: Tensor | None) -> None:
    """Raise InputError unless mean and std are there, of one shape (C,), finite, and the std positive."""
    if mean is None or std is None or mean.shape != std.shape or mean.ndim != 1:
        raise InputError(f"the statistics of band {band} are incomplete: one mean and one std per channel are needed")
    usable = mean.isfinite() & std.isfinite() & (std > 0)
    if not bool(usable.all()):
        channel = int(usable.logical_not().nonzero()[0, 0])
        raise InputError(
            f"the statistics of band {band}, channel {channel}, cannot be used: mean {float(mean[channel])}, "
            f"std {float(std[channel])}; the images hold values that are not finite, or the file was damaged"
        )
