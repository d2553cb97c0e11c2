"""The chain: what a GAN sees, put together from the bands that other GANs made.

All sub-images here are normalised (mean 0, deviation 1 per band and channel), as networks see
them. Where the plan has no GAN for the low band of a level, that band is derived: it is the
synthesis of the coarser level (exact nesting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import Band, SubImages
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.noise import draw_noise
from freqgan.model.noise_settings import NoiseMode
from freqgan.model.plan import BandPlan, Gan
from freqgan.model.real_batch import RealBatch
from freqgan.model.settings import ModelSettings
from freqgan.networks.blocks import compressed, grid_patch
from freqgan.pixels import from_pixels
from freqgan.recipe.augmentation import augment
from freqgan.seeds import generator_for
from freqgan.sizes import Size

LARGEST = 30.0
"""Deviations at which a GAN's sub-image is cut off, beyond any natural one (about 20): one sample that runs away
must not turn the gradients of the image stage into infinities. Flow experts get no such gradients, and are not cut off:
what they make of the noise of a real image is that image, however far out its detail lies."""


TARGET_DEVIATION = 1e-6
"""The least deviation of a number of an embedding: one that never varies says nothing, and stays near 0."""


class Condition(NamedTuple):
    """What one GAN sees: ``base`` (B, C, h, h) the low band it starts from, ``planes`` (B, K, g, g) all it sees.

    The planes lie on the GAN's own grid of g = h / patch cells a side, as asinh of the normalised bands: linear near
    0, logarithmic far out. Styles multiply features, so a condition outside all real ones came out of every GAN of a
    chain amplified by more than a factor: from 2 to 50 deviations over six GANs, then to infinity (measured, 64x64,
    12 GANs).
    """

    base: Tensor | None
    planes: Tensor | None

    def rows(self, rows: slice) -> Condition:
        """Return the condition of the samples ``rows`` alone."""
        return Condition(*(None if x is None else x[rows] for x in self))

    def followed_by(self, other: Condition) -> Condition:
        """Return the condition of these samples and then of those of ``other``, which sees the same bands."""
        pairs = zip(self, other, strict=True)
        return Condition(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))


class _Reals(NamedTuple):
    """A batch, and what it was made of."""

    step: int
    source: Tensor
    rows: slice
    batch: RealBatch


class Chain:
    """The plan, the transform and the band statistics of one model, on one device.

    Args:
        settings: the model.
        statistics: of the bands of the training images; moved to ``device``.
        device: where the tensors of every call live.

    """

    def __init__(self, settings: ModelSettings, statistics: BandStatistics, device: torch.device) -> None:
        self.settings = settings
        self.plan: BandPlan = settings.band_plan()
        self.transform = settings.band_transform()
        self.statistics = statistics.to(device)
        self.device = device
        self.size = settings.size
        self._last_reals: _Reals | None = None
        layout, targets = settings.target_layout, statistics.targets
        self._embedding_columns = layout.columns.get("embedding") if layout.packed and targets is not None else None
        if self._embedding_columns is not None and targets is not None:
            known = targets[:, self._embedding_columns].double()
            deviation = known.std(0, correction=0).clamp_min(TARGET_DEVIATION)
            self._embedding_scale = known.mean(0).float(), deviation.float()
        self._patches = {gan: grid_patch(self.gan_size(gan), self._wanted_patch(gan)) for gan in self.plan.gans}

    def band_size(self, band: Band | int) -> Size:
        """Return height and width of the sub-images of ``band``, or of the low band of a level, pixels."""
        return self.transform.band_size(self.size, band)

    def band_channels(self, band: Band) -> int:
        """Return the channels of the sub-images of ``band``: of clips those of each coefficient that a pixel has."""
        return self.settings.channels * self.transform.coefficients(band.time)

    def gan_channels(self, gan: Gan) -> int:
        """Return the channels of what ``gan`` generates, those of all of its bands."""
        return sum(map(self.band_channels, gan.bands))

    def gan_size(self, gan: Gan) -> Size:
        """Return height and width of what ``gan`` generates, pixels."""
        return self.band_size(gan.bands[0])

    def gan_grid(self, gan: Gan) -> Size:
        """Return the cells, down and across, of the grid that ``gan`` works on."""
        (height, width), patch = self.gan_size(gan), self.patch(gan)
        return height // patch, width // patch

    def patch(self, gan: Gan) -> int:
        """Return the pixels along a side of one cell of the grid that ``gan`` works on."""
        return self._patches[gan]

    def _wanted_patch(self, gan: Gan) -> int:
        if gan.has_velocity:
            return self.settings.velocity_sizes(gan).patch
        sizes = self.settings.band_generator if self.plan.has_base(gan) else self.settings.coarse_generator
        return sizes.patch

    # -- targets -------------------------------------------------------------------------------

    def normalised_targets(self, targets: Tensor) -> Tensor:
        """Return targets as networks see them: labels (B,) as they are, packed ones (B, K) with a normal embedding.

        Its numbers get mean 0 and the deviation 1 over the training images, whatever their unit.
        """
        columns = self._embedding_columns
        if columns is None:
            return targets
        mean, deviation = (x.to(targets.device) for x in self._embedding_scale)
        out = targets.clone()
        out[:, columns] = (targets[:, columns] - mean) / deviation
        return out

    def stored_targets(self, targets: Tensor) -> Tensor:
        """Return targets (B,) or (B, K) as the shards have them: the inverse of :meth:`normalised_targets`."""
        columns = self._embedding_columns
        if columns is None:
            return targets
        mean, deviation = (x.to(targets.device) for x in self._embedding_scale)
        out = targets.clone()
        out[:, columns] = targets[:, columns] * deviation + mean
        return out

    # -- real images ---------------------------------------------------------------------------

    def real(self, images: Tensor) -> SubImages:
        """Return all sub-images, normalised, of stored images (B, C, N, N), uint8 or uint16."""
        sub_images = self.transform.analyse(from_pixels(images, self.device))
        return {band: self.statistics.normalise(band, x) for band, x in sub_images.items()}

    def real_batch(self, step: int, pixels: Tensor, rows: slice | None = None) -> RealBatch:
        """Return the images of ``step``, augmented as that step has it.

        The last batch is kept: stages that share this chain and are given the same tensor share the work on it.

        Args:
            step: number of steps done before this one.
            pixels: stored images uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            rows: of the batch, that are wanted; all where not given.

        """
        rows, last = rows or slice(0, len(pixels)), self._last_reals
        if last is None or (last.step, last.rows) != (step, rows) or last.source is not pixels:
            self._last_reals = None  # before the next one takes memory
            settings = self.settings
            augmented = augment(pixels, settings.augmentation, settings.levels, settings.seed, step)
            last = self._last_reals = _Reals(step, pixels, rows, RealBatch(augmented[rows], self.real, self.device))
        return last.batch

    def stacked(self, gan: Gan, sub_images: SubImages) -> Tensor:
        """Return the bands of ``gan`` stacked by channel: (B, C * bands, h, h)."""
        return torch.cat([sub_images[band] for band in gan.bands], dim=1)

    def real_outputs(self, step: int, pixels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the real bands in place of the outputs (B, C * bands, h, h) of the experts ``names``.

        Args:
            step: number of steps done before this one.
            pixels: stored images uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            names: of experts.

        """
        if not names:
            return {}
        real = self.real_batch(step, pixels).sub_images
        return {name: self.stacked(self.plan.gan(name), real) for name in names}

    # -- generated bands -----------------------------------------------------------------------

    def projected(self, gan: Gan, output: Tensor) -> Tensor:
        """Return ``output`` (B, C * bands, h, h) of ``gan`` without what the transform cannot hold in its bands."""
        parts = output.chunk(len(gan.bands), dim=1)
        projected = [self.transform.projected(band, part) for band, part in zip(gan.bands, parts, strict=True)]
        same = all(new is old for new, old in zip(projected, parts, strict=True))
        return output if same else torch.cat(projected, dim=1)

    def noise(self, mode: NoiseMode, step: int, *, batch: int) -> Tensor:
        """Return the noises (GANs, B, n) of all GANs at ``step``, pairwise orthogonal per sample.

        Without GANs there is one, (1, B, n).
        """
        count, dimensions = self.settings.noise_count, self.settings.noise.dimensions
        return _drawn(mode, self.settings.seed, step, batch, count, dimensions).to(self.device)

    def choices(self, seed: int, step: int, batch: int) -> dict[Band, Tensor]:
        """Return, for every band made by an ensemble, which member each sample takes: (B,) int64."""
        bands = dict.fromkeys(band for gan in self.plan.gans for band in gan.bands)
        ensembles = {band: len(self.plan.members(band)) for band in bands}
        return {
            band: torch.randint(count, (batch,), generator=generator_for(seed, "member", str(band), step)).to(
                self.device
            )
            for band, count in ensembles.items()
            if count > 1
        }

    def pick(self, members: list[Tensor], choice: Tensor) -> Tensor:
        """Return (B, ...), for every sample that of the member chosen for it; ``members`` have (B, ...) each."""
        shape = (1, -1) + (1,) * (members[0].ndim - 1)
        index = choice.view(shape).expand(1, *members[0].shape)
        return torch.stack(members).gather(0, index)[0]

    def bands(self, outputs: Mapping[str, Tensor], choices: Mapping[Band, Tensor]) -> SubImages:
        """Return normalised sub-images (B, C, h, h) by band for the outputs (B, C * bands, h, h) of GANs by name.

        Of an ensemble they are the chosen member's; ``choices`` (B,) are those of :meth:`choices`.

        Nothing in them lies outside of what the transform keeps in that band.
        """
        by_band: dict[Band, list[Tensor]] = {}
        for gan in self.plan.gans:
            if gan.name in outputs:
                parts = outputs[gan.name].chunk(len(gan.bands), dim=1)
                for band, part in zip(gan.bands, parts, strict=True):
                    by_band.setdefault(band, []).append(part)
        members = {
            band: parts[0] if len(parts) == 1 else self.pick(parts, choices[band]) for band, parts in by_band.items()
        }
        flows = {band for gan in self.plan.gans if gan.kind == "flow" for band in gan.bands}
        bounded = {band: x if band in flows else x.clamp(-LARGEST, LARGEST) for band, x in members.items()}
        return {band: self.transform.projected(band, x) for band, x in bounded.items()}

    # -- conditions ----------------------------------------------------------------------------

    def low(self, band: Band, sub_images: SubImages, *, derive: bool = False) -> Tensor:
        """Return the normalised low band ``band``, (B, C, h, h): as given, or the synthesis of the next coarser level.

        It is the synthesis with ``derive``, or where ``sub_images`` do not have it.
        """
        if band in sub_images and not derive:
            return sub_images[band]
        level, time = band.level, band.time
        coarser = Band(level + 1, "LL", time)
        coarse = self.statistics.denormalise(coarser, self.low(coarser, sub_images))
        high = [b for b in sub_images if (b.level, b.time) == (level + 1, time) and b.orientation != "LL"]
        raw = {b: self.statistics.denormalise(b, sub_images[b]) for b in high}
        low = self.transform.synthesise_onto(coarse, raw, level + 1)
        return self.transform.projected(band, self.statistics.normalise(band, low))

    def condition(self, gan: Gan, sub_images: SubImages) -> Condition:
        """Return what ``gan`` sees of ``sub_images``, normalised (B, C, h, h), at least the bands of ``gan.seen``.

        The base comes first among the planes. Bands are brought to the GAN's grid without loss where they are
        finer (space to depth) and by repetition where they are coarser.
        """
        base = None
        if self.plan.has_base(gan):
            seen = {band: sub_images[band] for band in gan.seen}
            base = self.low(Band(gan.level, "LL", gan.time), seen, derive=gan.is_low)
            base = self.transform.low_beside(gan.bands[0], base)
        grid = self.gan_grid(gan)
        others = [sub_images[band] for band in self._others(gan)]
        planes = [on_grid(x, grid) for x in ([] if base is None else [base]) + others]
        return Condition(base, compressed(torch.cat(planes, dim=1)) if planes else None)

    def condition_channels(self, gan: Gan) -> int:
        """Return the number of channels of ``Condition.planes`` for ``gan``."""
        grid = self.gan_grid(gan)
        planes = [(self.band_channels(band), self.band_size(band)) for band in self._others(gan)]
        planes += [(self.band_channels(gan.bands[0]), self.gan_size(gan))] * self.plan.has_base(gan)
        return sum(channels * _fold(size, grid) ** 2 for channels, size in planes)

    def _others(self, gan: Gan) -> list[Band]:
        return [band for band in gan.seen if band != Band(gan.level, "LL", gan.time)]

    # -- images --------------------------------------------------------------------------------

    def image(self, sub_images: SubImages) -> Tensor:
        """Return the images (B, C, N, N) of normalised sub-images of a pass of the chain, in [-1, 1] give or take.

        The finest low band is the chain's own (refined) where it has one; missing high bands count as zero.
        """
        raw = {band: self.statistics.denormalise(band, x) for band, x in sub_images.items()}
        return self.transform.synthesise(raw, self.size)


_drawn = lru_cache(maxsize=2)(draw_noise)
"""All GANs of a process draw the same twice in a step: for it, and for the step that feedback is of."""


def on_grid(x: Tensor, grid: Size) -> Tensor:
    """Return (B, C f^2, g, g') for ``x`` (B, C, h, w), with (g, g') = ``grid``.

    That is space to depth where x is finer (zero-padded to f times the grid), and repetition where it is coarser.
    """
    height, width = x.shape[-2:]
    fold = _fold((height, width), grid)
    if fold == 1:
        return x if (height, width) == grid else functional.interpolate(x, size=grid, mode="nearest")
    below, beside = fold * grid[0] - height, fold * grid[1] - width
    return functional.pixel_unshuffle(functional.pad(x, (0, beside, 0, below)) if below or beside else x, fold)


def _fold(size: Size, grid: Size) -> int:
    """Return the pixels along a side of an image of ``size`` that share a cell of ``grid``: as few as cover it."""
    return max(1, *(-(-pixels // cells) for pixels, cells in zip(size, grid, strict=True)))
