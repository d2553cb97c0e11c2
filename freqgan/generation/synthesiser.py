"""Trained generators, the inverse transform and the blend as one module; no discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from freqgan.bands import Band, SubImages
from freqgan.errors import InputError
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.generators import AVERAGE, ImageGenerator, build_band_generator, coarse_noise
from freqgan.model.noise import draw_noise, orthogonal_noises
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.seeds import generator_for
from freqgan.tensor_dicts import strip_prefix, to_numbers

BLOCK = 64
"""Samples whose noise is drawn together. Part of what a seed means: never change it."""


class Generated(NamedTuple):
    """Images in [-1, 1] give or take, (B, C, N, N) each, and the normalised sub-images they were made of."""

    images: Tensor
    frequency: Tensor
    conventional: Tensor
    sub_images: SubImages

    def rows(self, rows: slice) -> Generated:
        """Return the samples ``rows`` alone."""
        bands = {band: x[rows] for band, x in self.sub_images.items()}
        return Generated(self.images[rows], self.frequency[rows], self.conventional[rows], bands)

    @staticmethod
    def joined(parts: Sequence[Generated]) -> Generated:
        """Return the samples of all ``parts``, in order."""

        def cat(pick: Callable[[Generated], Tensor]) -> Tensor:
            return torch.cat([pick(part) for part in parts])

        bands = {band: torch.cat([part.sub_images[band] for part in parts]) for band in parts[0].sub_images}
        return Generated(cat(lambda p: p.images), cat(lambda p: p.frequency), cat(lambda p: p.conventional), bands)


class Draws(NamedTuple):
    """Noises (GANs, B, n), labels (B,) or None, and choices of ensemble members: what an image is a function of."""

    noises: Tensor
    labels: Tensor | None
    choices: dict[Band, Tensor]


class Synthesiser(nn.Module):
    """noise -> the chain's sub-images -> inverse transform -> blend with G_o; everything by averaged weights.

    Args:
        settings: of the model.
        statistics: of its bands.
        states: tensors by stage name, those of ``BandGan.state_dict`` and ``ImageStage.state_dict``; only
            the parts called ``average.`` are read.
        device: to generate on.

    """

    def __init__(
        self,
        settings: ModelSettings,
        statistics: BandStatistics,
        states: Mapping[str, dict[str, Tensor]],
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.chain = Chain(settings, statistics, device or torch.device("cpu"))
        names = [gan.name for gan in self.chain.plan.gans]
        missing = [name for name in [*names, IMAGE_STAGE] if name not in states]
        if missing:
            raise InputError(f"the model has no state for {', '.join(missing)}: it was trained with another plan")
        self.generators = nn.ModuleList(build_band_generator(self.chain, gan) for gan in self.chain.plan.gans)
        self.image = ImageGenerator(self.chain)
        for name, module in zip([*names, IMAGE_STAGE], [*self.generators, self.image], strict=True):
            module.load_state_dict(strip_prefix(AVERAGE, states[name]))
        self.to(self.chain.device).eval().requires_grad_(False)

    @property
    def alphas(self) -> dict[str, float]:
        """The learned blend weight, or one per band."""
        return to_numbers(self.image.blend.alphas())

    @torch.no_grad()
    def forward(
        self, noises: Tensor, labels: Tensor | None = None, choices: Mapping[Band, Tensor] | None = None
    ) -> Generated:
        """Return the images that the chain makes of given noises.

        Args:
            noises: (GANs, B, n), one vector per GAN and sample, or a target vector (B, n) from which every
                GAN gets its own orthogonal noise.
            labels: (B,) int64, for a model with classes.
            choices: of ensemble members, see ``Chain.choices``; those of seed 0 where not given.

        """
        noises = noises.to(self.chain.device)
        if noises.ndim == 2:
            noises = orthogonal_noises(noises, self.settings.noise_count)
        labels = None if labels is None else labels.to(self.chain.device)
        members = choices or self.chain.choices(0, 0, noises.shape[1])
        conventional = self.image(coarse_noise(self.chain, noises, members), labels)
        if not self.generators:  # a conventional GAN alone: its bands are those of its images
            return Generated(conventional, conventional, conventional, self._analysed(conventional))
        sub_images = self.run_chain(noises, labels, members)
        frequency = self.chain.image(sub_images)
        return Generated(self.image.blend(frequency, conventional), frequency, conventional, sub_images)

    def _analysed(self, images: Tensor) -> SubImages:
        raw = self.chain.transform.analyse(images)
        return {band: self.chain.statistics.normalise(band, x) for band, x in raw.items()}

    def run_chain(
        self,
        noises: Tensor,
        labels: Tensor | None,
        choices: Mapping[Band, Tensor],
        fixed: Mapping[Band, Tensor] | None = None,
    ) -> SubImages:
        """Return the normalised sub-images of a pass of the chain.

        Args:
            noises: (GANs, B, n).
            labels: (B,) int64, for a model with classes.
            choices: of ensemble members, see ``Chain.choices``.
            fixed: normalised sub-images (B, C, h, h) that are taken as they are: no GAN is run for them, and those
                after them see them.

        """
        side, batch = self.chain.band_side, noises.shape[1]
        condition_noise = torch.zeros(batch, device=self.chain.device)
        known = dict(fixed or {})
        outputs: dict[str, Tensor] = {}
        zeros = {
            band: torch.zeros(batch, self.settings.channels, side(band), side(band), device=condition_noise.device)
            for gan in self.chain.plan.gans
            for band in gan.ring_condition
        }
        for _ in range(self.chain.plan.cycles):
            for gan, noise, generator in zip(self.chain.plan.gans, noises, self.generators, strict=True):
                if not set(gan.bands) <= known.keys():
                    seen = self.chain.condition(gan, zeros | self.chain.bands(outputs, choices) | known)
                    outputs[gan.name] = generator(noise, seen.planes, seen.base, condition_noise, labels)
        return self.chain.bands(outputs, choices) | known

    def sample(self, seed: int, count: int, first: int = 0, labels: Tensor | None = None) -> Generated:
        """Return samples ``first`` .. ``first + count`` of ``seed``, images of (count, C, N, N).

        Sample i has the same pixels whatever the count.

        Args:
            seed: any non-negative integer.
            count: how many, at least 1.
            first: number of the first.
            labels: (count,) classes; drawn uniformly where not given and the model has classes.

        """
        parts = [
            self._part(seed, block, max(first, block * BLOCK), min(first + count, (block + 1) * BLOCK), first, labels)
            for block in range(first // BLOCK, -(-(first + count) // BLOCK))
        ]
        return Generated.joined(parts)

    def draws(self, seed: int, count: int) -> Draws:
        """Return what the first ``count`` samples of ``seed`` are made of, as :meth:`sample` draws it.

        Raises:
            InputError: ``count`` is above 64, the samples whose noise is drawn together.

        """
        if count > BLOCK:
            raise InputError(f"{count} samples were asked for, and {BLOCK} are drawn together: take them in parts")
        noises, labels, choices = self._block(seed, 0)
        own_choices = {band: choice[:count] for band, choice in choices.items()}
        own_labels = labels[:count].to(self.chain.device) if self.settings.classes else None
        return Draws(noises[:, :count].to(self.chain.device), own_labels, own_choices)

    def _part(self, seed: int, block: int, begin: int, end: int, first: int, labels: Tensor | None) -> Generated:
        """Return samples ``begin`` .. ``end`` of one block.

        All of the block is run, for convolutions round differently by batch.
        """
        noises, block_labels, choices = self._block(seed, block)
        rows = slice(begin - block * BLOCK, end - block * BLOCK)
        if labels is not None:
            block_labels[rows] = labels[begin - first : end - first]
        generated: Generated = self(noises, block_labels if self.settings.classes else None, choices)
        return generated.rows(rows)

    def _block(self, seed: int, block: int) -> tuple[Tensor, Tensor, dict[Band, Tensor]]:
        noise, count = self.settings.noise, self.settings.noise_count
        noises = draw_noise(noise.generation, seed, block, BLOCK, count, noise.dimensions)
        labels = torch.randint(max(1, self.settings.classes), (BLOCK,), generator=generator_for(seed, "label", block))
        return noises, labels, self.chain.choices(seed, block, BLOCK)
