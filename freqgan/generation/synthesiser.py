"""Trained generators, the inverse transform and the blend as one module; no discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from freqgan.bands import Band, SubImages
from freqgan.companions.image_generator import ImageGenerator, rest_of_noise, whole_noise
from freqgan.errors import InputError
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain, Condition
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_expert import FlowExpert, VelocityPair, build_velocity_pair
from freqgan.model.fusion import FusionGenerator
from freqgan.model.generators import AVERAGE, build_band_generator, coarse_noise
from freqgan.model.noise import draw_noise, orthogonal_noises
from freqgan.model.plan import Gan
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE, stage_names
from freqgan.networks.target_embedding import hidden_targets
from freqgan.seeds import derive_seed, generator_for
from freqgan.tensor_dicts import strip_prefix, to_numbers

BLOCK = 64
"""Samples whose noise is drawn together. Part of what a seed means: never change it."""
FeatureSource = Callable[[int, int, Tensor], Tensor]
"""Returns the features (64, d) that samples of a block of a seed are to have: f(seed, block, labels (64,) int64)."""


class Generated(NamedTuple):
    """Images in [-1, 1] give or take, (B, C, N, N) each, and the normalised sub-images they were made of.

    Without an image stage ``images`` and ``conventional`` are those of the chain, ``frequency``.
    """

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
    """What images are a function of.

    Attributes:
        noises: (experts, B, n), a vector for each expert and sample.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        choices: of ensemble members, (B,) int64 by band.
        rests: by flow expert, the numbers (B, D - n) of its noise beside its vector; by the name of the image stage
            those of its companion, if that needs such.
        seed: with ``block`` it seeds the noise on conditions, where the settings have such.
        block: see ``seed``.

    """

    noises: Tensor
    targets: Tensor | None
    choices: dict[Band, Tensor]
    rests: dict[str, Tensor]
    seed: int = 0
    block: int = 0

    def rows(self, rows: slice) -> Draws:
        """Return the draws of the samples ``rows`` alone."""
        return self._replace(
            noises=self.noises[:, rows],
            targets=None if self.targets is None else self.targets[rows],
            choices={band: choice[rows] for band, choice in self.choices.items()},
            rests={name: rest[rows] for name, rest in self.rests.items()},
        )

    @staticmethod
    def joined(parts: Sequence[Draws]) -> Draws:
        """Return the draws of all ``parts``, of one model, in order; ``seed`` and ``block`` are those of the first.

        So samples of several seeds share a pass. It is of no use where :attr:`Synthesiser.needs_blocks` holds: noise on
        conditions is of one block.
        """
        first, targets = parts[0], [part.targets for part in parts if part.targets is not None]
        return first._replace(
            noises=torch.cat([part.noises for part in parts], dim=1),
            targets=torch.cat(targets) if targets else None,
            choices={band: torch.cat([part.choices[band] for part in parts]) for band in first.choices},
            rests={name: torch.cat([part.rests[name] for part in parts]) for name in first.rests},
        )

    def scaled(self, factor: float) -> Draws:
        """Return these draws with all noise times ``factor``: below 1 nearer to what is usual, and less varied."""
        rests = {name: rest * factor for name, rest in self.rests.items()}
        return self if factor == 1 else self._replace(noises=self.noises * factor, rests=rests)


class Synthesiser(nn.Module):
    """noise -> the chain's sub-images -> inverse transform -> blend with G_o; everything by averaged weights.

    Args:
        settings: of the model; ``generation`` among them may differ from what it was trained with.
        statistics: of its bands.
        states: tensors by stage name, those of ``state_dict`` of every stage; only the parts called ``average.`` are
            read.
        device: to generate on.
        feature_source: gives the features of samples for which none are asked for, of the images of another model;
            those of training images where it is not given.

    """

    def __init__(
        self,
        settings: ModelSettings,
        statistics: BandStatistics,
        states: Mapping[str, dict[str, Tensor]],
        device: torch.device | None = None,
        feature_source: FeatureSource | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.feature_source = settings, feature_source
        self.chain = Chain(settings, statistics, device or torch.device("cpu"))
        names = stage_names(settings)
        missing = [name for name in names if name not in states]
        if missing:
            raise InputError(f"the model has no state for {', '.join(missing)}: it was trained with another plan")
        self.generators = nn.ModuleList(_build_networks(self.chain, gan) for gan in self.chain.plan.gans)
        self.fusion = FusionGenerator(self.chain) if settings.system == "fusion" else None
        is_blended = settings.image_stage.enabled and self.fusion is None
        self.image = ImageGenerator(self.chain) if is_blended else None
        modules = [*self.generators, *(module for module in (self.image, self.fusion) if module is not None)]
        for name, module in zip(names, modules, strict=True):
            module.load_state_dict(strip_prefix(AVERAGE, states[name]))
        self.flows = {
            gan.name: FlowExpert(self.chain, gan, networks)
            for gan, networks in zip(self.chain.plan.gans, self.generators, strict=True)
            if isinstance(networks, VelocityPair)
        }
        self.to(self.chain.device).eval().requires_grad_(False)

    @property
    def alphas(self) -> dict[str, float]:
        """The learned blend weight, or one per band; none without an image stage."""
        return {} if self.image is None else to_numbers(self.image.blend.alphas())

    @property
    def share(self) -> float | None:
        """The learned lambda, the share of the bands in the images of the jointly trained system; None of others."""
        return None if self.fusion is None else float(self.fusion.blend.weight)

    def set_generation(self, generation: GenerationSettings) -> None:
        """Have flow experts generate by ``generation`` from now on, in place of the settings' own."""
        self.settings = self.settings.model_copy(update={"generation": generation})

    def forward(
        self, noises: Tensor, targets: Tensor | None = None, choices: Mapping[Band, Tensor] | None = None
    ) -> Generated:
        """Return the images that the chain makes of given noises.

        Args:
            noises: (experts, B, n), one vector per expert and sample, or a target vector (B, n) from which every
                expert gets its own orthogonal noise.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.
            choices: of ensemble members, see ``Chain.choices``; those of seed 0 where not given.

        """
        noises = noises.to(self.chain.device)
        if noises.ndim == 2:
            noises = orthogonal_noises(noises, self.settings.noise_count)
        targets = None if targets is None else targets.to(self.chain.device)
        batch = noises.shape[1]
        members = dict(choices or self.chain.choices(0, 0, batch))
        return self.draw(Draws(noises, targets, members, self._rests(0, 0, batch)))

    @torch.no_grad()
    def draw(self, draws: Draws) -> Generated:
        """Return the images (B, C, N, N) of ``draws``."""
        conventional = None
        if self.fusion is not None:
            parts: tuple[Tensor, ...] = self.fusion(draws.noises[0], draws.targets)
            if (hidden := self._hidden(draws.targets)) is not None:
                without = self.fusion(draws.noises[0], hidden)
                parts = tuple(self._led_away(x, other) for x, other in zip(parts, without, strict=True))
            images = self.fusion.blended(*parts)
            return Generated(images.images, images.frequency, images.conventional, images.sub_images)
        if self.image is not None:
            image, noise = self.image, self._companion_noise(draws)
            conventional = self._guided(lambda targets: image(noise, targets), draws.targets)
            if not self.generators:  # a conventional GAN alone: its bands are those of its images
                return Generated(conventional, conventional, conventional, self.analysed(conventional))
        sub_images = self.run_chain(draws)
        return self.blended(sub_images, conventional)

    def blended(self, sub_images: SubImages, conventional: Tensor | None) -> Generated:
        """Return images of the chain's ``sub_images``, blended with those of G_o (B, C, N, N) where there are such."""
        frequency = self.chain.image(sub_images)
        if self.image is None or conventional is None:
            return Generated(frequency, frequency, frequency, sub_images)
        return Generated(self.image.blend(frequency, conventional), frequency, conventional, sub_images)

    def _rests(self, seed: int, block: int, batch: int) -> dict[str, Tensor]:
        rests = {name: flow.rest(seed, block, batch) for name, flow in self.flows.items()}
        if self.image is not None:
            rest = rest_of_noise(self.image.other, self.settings.noise.dimensions, seed, block, batch)
            rests[IMAGE_STAGE] = rest.to(self.chain.device)
        return rests

    def _companion_noise(self, draws: Draws) -> Tensor:
        """Return the numbers (B, numbers) that the companion's images of ``draws`` are made from."""
        assert self.image is not None
        vector = coarse_noise(self.chain, draws.noises, draws.choices)
        return whole_noise(self.image.other, vector, draws.rests[IMAGE_STAGE])

    def analysed(self, images: Tensor) -> SubImages:
        """Return all sub-images (B, C, h, h), normalised, of images (B, C, N, N) in [-1, 1]."""
        return self.chain.statistics.normalise_all(self.chain.transform.analyse(images))

    def run_chain(self, draws: Draws, fixed: Mapping[Band, Tensor] | None = None) -> SubImages:
        """Return the normalised sub-images of a pass of the chain.

        Args:
            draws: what they are a function of.
            fixed: normalised sub-images (B, C, h, h) that are taken as they are: no expert is run for them, and those
                after them see them.

        """
        batch = draws.noises.shape[1]
        known = dict(fixed or {})
        outputs: dict[str, Tensor] = {}
        zeros = {
            band: torch.zeros(
                batch, self.chain.band_channels(band), *self.chain.band_size(band), device=self.chain.device
            )
            for gan in self.chain.plan.gans
            for band in gan.ring_condition
        }
        for _ in range(self.chain.plan.cycles):
            for gan in self.chain.plan.gans:
                if not set(gan.bands) <= known.keys():
                    seen = zeros | self.chain.bands(outputs, draws.choices) | known
                    outputs[gan.name] = self._output(gan, seen, draws)
        return self.chain.bands(outputs, draws.choices) | known

    def _output(self, gan: Gan, bands: SubImages, draws: Draws) -> Tensor:
        """Return what ``gan`` makes (B, C * bands, h, h) of the normalised ``bands`` before it."""
        index = self.chain.plan.index(gan)
        vector, flow = draws.noises[index], self.flows.get(gan.name)
        strength = torch.zeros(vector.shape[0], device=self.chain.device)
        if flow is None:
            seen = self.chain.condition(gan, bands)
            network = self.generators[index]
            return self._guided(
                lambda targets: network(vector, seen.planes, seen.base, strength, targets), draws.targets
            )
        seen, strength = self.flow_condition(gan, bands, draws)
        noise = flow.noise(vector, draws.rests[gan.name])
        return flow.sample(noise, seen, strength, draws.targets, self.settings.generation)

    def _guided(self, network: Callable[[Tensor | None], Tensor], targets: Tensor | None) -> Tensor:
        """Return what ``network`` makes of ``targets`` (B, K), led away from what it makes of the same noise without.

        Labels alone (B,) were shown to all samples of a GAN, which cannot do without.
        """
        output, hidden = network(targets), self._hidden(targets)
        return output if hidden is None else self._led_away(output, network(hidden))

    def _hidden(self, targets: Tensor | None) -> Tensor | None:
        """Return ``targets`` (B, K), none of them shown; None where there is no guidance."""
        layout = self.settings.target_layout
        if targets is None or not layout.packed or not self.settings.generation.label_guidance:
            return None
        return hidden_targets(layout, targets, torch.ones(targets.shape[0], dtype=torch.bool, device=targets.device))

    def _led_away(self, output: Tensor, without: Tensor) -> Tensor:
        return output + self.settings.generation.label_guidance * (output - without)

    def flow_condition(self, gan: Gan, bands: SubImages, draws: Draws) -> tuple[Condition, Tensor]:
        """Return what a flow expert sees of normalised ``bands``, and the strength (B,) of the noise on it."""
        strength = self.settings.generation.condition_noise if gan.seen else 0.0
        if strength:
            rng = generator_for(draws.seed, "noise on conditions", gan.name, draws.block)
            bands = dict(bands)
            for band in gan.seen:
                noise = torch.randn(bands[band].shape, generator=rng).to(self.chain.device)
                bands[band] = bands[band] + strength * noise
        batch = draws.noises.shape[1]
        return self.chain.condition(gan, bands), torch.full((batch,), strength, device=self.chain.device)

    def sample(
        self, seed: int, count: int, first: int = 0, targets: Tensor | None = None, *, whole_blocks: bool = True
    ) -> Generated:
        """Return samples ``first`` .. ``first + count`` of ``seed``, images of (count, C, N, N).

        Sample i has the same pixels whatever the count.

        Args:
            seed: any non-negative integer.
            count: how many, at least 1.
            first: number of the first.
            targets: (count,) labels, or (count, K) packed, as the shards have them; drawn where not given.
            whole_blocks: runs all 64 samples of every block, so that pixels do not depend on the count at all. Without
                it one sample costs one, and differs by the rounding of convolutions: by 1 of 255 at most.

        """
        if not whole_blocks and not self.needs_blocks:
            return Generated.joined([self.draw(part) for part in self.draws_by_block(seed, count, first, targets)])
        parts = [
            self._part(seed, block, max(first, block * BLOCK), min(first + count, (block + 1) * BLOCK), first, targets)
            for block in range(first // BLOCK, -(-(first + count) // BLOCK))
        ]
        return Generated.joined(parts)

    def draws(self, seed: int, count: int, targets: Tensor | None = None) -> Draws:
        """Return what the first ``count`` samples of ``seed`` are made of, as :meth:`sample` draws it.

        ``targets``, labels (b,) or packed (b, K) of the first of them, are as for :meth:`block_draws`.

        Raises:
            InputError: ``count`` is above 64, the samples whose noise is drawn together.

        """
        if count > BLOCK:
            raise InputError(f"{count} samples were asked for, and {BLOCK} are drawn together: take them in parts")
        return self.block_draws(seed, 0, targets).rows(slice(count))

    @property
    def needs_blocks(self) -> bool:
        """Whether a sample can be drawn with the rest of its block alone: noise on conditions is that of a block."""
        sees_noise = any(gan.seen for gan in self.chain.plan.gans if gan.name in self.flows)
        return sees_noise and self.settings.generation.condition_noise > 0

    def draws_by_block(self, seed: int, count: int, first: int = 0, targets: Tensor | None = None) -> list[Draws]:
        """Return what samples ``first`` .. ``first + count`` of ``seed`` are made of, those of every block together.

        The noise of whole blocks is drawn, which costs little, and their own rows are taken; ``targets``, labels
        (count,) or packed (count, K), are as for :meth:`sample`.
        """
        parts = []
        for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
            begin, end = max(first, block * BLOCK), min(first + count, (block + 1) * BLOCK)
            own = None if targets is None else targets[begin - first : end - first]
            rows = slice(begin - block * BLOCK, end - block * BLOCK)
            parts.append(self.block_draws(seed, block, own, rows.start).rows(rows))
        return parts

    def _part(self, seed: int, block: int, begin: int, end: int, first: int, targets: Tensor | None) -> Generated:
        """Return samples ``begin`` .. ``end`` of one block.

        All of the block is run, for convolutions round differently by batch.
        """
        rows = slice(begin - block * BLOCK, end - block * BLOCK)
        own = None if targets is None else targets[begin - first : end - first]
        return self.draw(self.block_draws(seed, block, own, rows.start)).rows(rows)

    def block_draws(self, seed: int, block: int, targets: Tensor | None = None, first: int = 0) -> Draws:
        """Return what the 64 samples of ``block`` of ``seed`` are made of.

        Args:
            seed: any non-negative integer.
            block: number of the block.
            targets: of b of the samples, labels (b,) or packed (b, K), as the shards have them; those of the others
                are of training images. All are drawn where it is not given; a model without targets has no use for it.
            first: the sample of the block that the first of ``targets`` belongs to.

        """
        noise, count, device = self.settings.noise, self.settings.noise_count, self.chain.device
        own = self.noise_seed(seed)
        noises = draw_noise(noise.generation, own, block, BLOCK, count, noise.dimensions).to(device)
        choices, rests = self.chain.choices(own, block, BLOCK), self._rests(own, block, BLOCK)
        drawn = self._block_targets(seed, block, targets, first) if self.settings.target_layout else None
        return Draws(noises, drawn, choices, rests, own, block)

    def noise_seed(self, seed: int) -> int:
        """Return the seed of the noise of samples of ``seed``.

        Where another model's images are shown it is not that model's: what a sample is made of beside the target must
        not depend on the target, as it does not in training.
        """
        return seed if self.feature_source is None else derive_seed(seed, "second stage")

    def _block_targets(self, seed: int, block: int, given: Tensor | None, first: int) -> Tensor:
        """Return the targets (64,) or (64, K) of a block, normalised, with those ``given`` from ``first`` on."""
        if given is None:
            return self.random_targets(seed, block)
        targets = self._stored_targets(seed, block)
        targets[first : first + len(given)] = given.to(targets)
        return self.chain.normalised_targets(targets)

    @property
    def known_targets(self) -> Tensor:
        """Packed targets (n, K) of some training images, as the shards have them.

        Raises:
            InputError: the model stores none.

        """
        known = self.chain.statistics.targets
        if known is None:
            raise InputError("the statistics of the model have no targets: it was trained without conditioning")
        return known

    def random_targets(self, seed: int, block: int) -> Tensor:
        """Return the targets of a block for which none are asked for, of a model with targets, normalised.

        They are labels (64,) uniformly, or packed (64, K) of training images, with the features of another model's
        images where such are shown.
        """
        targets = self._stored_targets(seed, block)
        return self.chain.normalised_targets(self.with_features(targets, seed, block * BLOCK))

    def _stored_targets(self, seed: int, block: int) -> Tensor:
        """Return labels (64,) uniformly, or packed targets (64, K) of training images, as the shards have them."""
        layout, rng = self.settings.target_layout, generator_for(self.noise_seed(seed), "label", block)
        if not layout.packed:
            return torch.randint(layout.classes, (BLOCK,), generator=rng).to(self.chain.device)
        rows = torch.randint(len(self.known_targets), (BLOCK,), generator=rng).to(self.chain.device)
        return self.known_targets[rows]

    def with_features(self, targets: Tensor, seed: int, first: int) -> Tensor:
        """Return ``targets`` (B, K) of samples ``first`` .. of ``seed`` with the features of another model's images.

        They are as the shards have them, and stay as they are where no other model's images are shown. The other model
        is asked for whole blocks, so that a sample has the same features alone and among others.
        """
        columns = self.settings.target_layout.columns
        if self.feature_source is None or "features" not in columns or not self.settings.target_layout.packed:
            return targets
        out = targets.clone()
        for block in range(first // BLOCK, -(-(first + len(targets)) // BLOCK)):
            start = block * BLOCK - first  # of the block among the targets
            rows = slice(max(0, start), min(len(targets), start + BLOCK))
            inner = slice(rows.start - start, rows.stop - start)
            labels = torch.zeros(BLOCK, dtype=torch.int64)
            if "label" in columns:
                labels[inner] = targets[rows, columns["label"]].squeeze(1).long().cpu()
            out[rows, columns["features"]] = self.feature_source(seed, block, labels)[inner].to(out)
        return out


def _build_networks(chain: Chain, gan: Gan) -> nn.Module:
    return build_velocity_pair(chain, gan) if gan.has_velocity else build_band_generator(chain, gan)
