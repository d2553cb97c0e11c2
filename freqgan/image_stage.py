"""The image stage: inverse transform, blend with another generator, and the discriminator of whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.augmentation import augment
from freqgan.bands import Band
from freqgan.chain import Chain
from freqgan.contest import Contest
from freqgan.critic import Critic, Metrics, Pairs, named, under
from freqgan.health import deviations
from freqgan.losses import generator_loss
from freqgan.networks.blocks import grid_patch
from freqgan.networks.discriminators import Discriminator
from freqgan.networks.generators import GeneratorShape, RootGenerator
from freqgan.pixels import from_pixels
from freqgan.reconstruction import ReconstructionCritics
from freqgan.seeds import seeded
from freqgan.settings import ModelSettings

IMAGE_STAGE = "image"
SOLO = "solo"


class ImageStepResult(NamedTuple):
    """``images`` (B, C, N, N) blended; plain numbers; gradients for the outputs of the bands, by name.

    A gradient has the shape of the band's output, and is that of the mean loss over the batch.
    """

    images: Tensor
    metrics: Metrics
    feedback: dict[str, Tensor]


class Blend(nn.Module):
    """alpha x_freq + (1 - alpha) x_other with a learned alpha = sigmoid(a), a = 0 at the start.

    ``per_band`` has one alpha for each of the bands that hold an image without repetition (3L + 1 of quadrants) and
    blends coefficients; with equal values that is exactly the scalar blend, the transform being linear.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        levels = chain.settings.levels
        self.chain = chain
        self.bands = [b for b in chain.transform.bands() if b.orientation != "LL" or b.level == levels]
        self.per_band = chain.settings.image_stage.alpha == "per_band"
        self.logits = nn.Parameter(torch.zeros(len(self.bands) if self.per_band else 1))

    def alphas(self) -> dict[str, float]:
        """alpha by band name, or {"alpha": value}."""
        values = self.logits.detach().sigmoid().tolist()
        return dict(zip(map(str, self.bands), values, strict=True)) if self.per_band else {"alpha": values[0]}

    def forward(self, frequency: Tensor, other: Tensor) -> Tensor:
        """Two images (B, C, N, N) -> their blend."""
        alpha = self.logits.sigmoid()
        if not self.per_band:
            return other + alpha * (frequency - other)
        first, second = self.chain.transform.analyse(frequency), self.chain.transform.analyse(other)
        mixed = {b: second[b] + a * (first[b] - second[b]) for b, a in zip(self.bands, alpha, strict=True)}
        return self.chain.transform.synthesise(mixed, self.chain.size)


class ImageGenerator(nn.Module):
    """G_o, a conventional generator of whole images, and the blend of its output with that of the chain."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        settings = chain.settings
        stage = settings.image_stage
        patch = grid_patch(settings.image_size, stage.generator.patch)
        shape = GeneratorShape(
            settings.image_size,
            patch,
            settings.channels,
            0,
            0,
            settings.noise.dimensions,
            settings.classes,
            IMAGE_STAGE,
        )
        with seeded(settings.seed, "generator", IMAGE_STAGE):
            self.other = RootGenerator(shape, stage.generator, attention=stage.attention)
        self.blend = Blend(chain)

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """(B, n), (B,) or None -> G_o's images (B, C, N, N)."""
        strength = torch.zeros(len(noise), device=noise.device)
        out: Tensor = self.other(noise, None, None, strength, labels)
        return out


class ImageStage:
    """Trains G_o, alpha and D_o on the reconstruction of the chain's bands, and tells the bands what D_o thinks.

    Part of each batch is G_o alone (``solo_share``), so that it stays a generator in its own right; a discriminator of
    its own judges it. D_o judges the rest: the chain's image alone (``chain_share``) and the blend. One discriminator
    for both told the chain to make up for G_o's lack of contrast (measured: the derivative of its loss by the gain of
    LL1 was negative where that of the band's own was positive, and contrast ended 8 to 15 % too high). G_o is tied to
    the chain: it gets the noise of the coarsest low band, and its own coarsest low band is pulled toward the chain's;
    two unrelated images blended would be a double exposure. With a plan of no GANs all of it is G_o.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.name = chain, IMAGE_STAGE
        settings = chain.settings
        generator = ImageGenerator(chain).to(chain.device)
        rate = settings.image_stage.alpha_learning_rate / settings.optimiser.learning_rate
        self.contest = Contest(
            IMAGE_STAGE,
            generator,
            self._discriminator(IMAGE_STAGE),
            settings,
            settings.image_size,
            {"blend.logits": rate},
        )
        self.reconstructions = ReconstructionCritics(chain)
        self.solo_count = round(settings.image_stage.solo_share * settings.batch) if chain.plan.gans else 0
        self.solo = self._solo_critic() if self.solo_count else None

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    @property
    def generator(self) -> ImageGenerator:
        """G_o and the blend, as trained (not averaged)."""
        assert isinstance(self.contest.generator, ImageGenerator)
        return self.contest.generator

    def step(self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor]) -> ImageStepResult:
        """Trains on one batch; ``outputs`` are those of every GAN of the chain at this step."""
        settings = self.settings
        chosen = labels.to(self.chain.device) if settings.classes else None
        augmented = augment(images, settings.augmentation, settings.levels, settings.seed, step)
        reals = from_pixels(augmented, self.chain.device)
        choices = self.chain.choices(settings.seed, step, len(images))
        noise = coarse_noise(self.chain, self.chain.noise(settings.noise.training, step, batch=len(images)), choices)
        other = self.contest.generate(noise, chosen)
        if not self.chain.plan.gans:
            metrics, _ = self._train(step, reals, other, chosen, [], [])
            return ImageStepResult(other.detach(), metrics, {})
        leaves = {name: out.detach().requires_grad_(settings.feeds_back) for name, out in outputs.items()}
        bands = self.chain.bands(leaves, choices)
        frequency = self.chain.image(bands)
        blended = self.generator.blend(frequency, other)
        solo_losses, solo_metrics = self._train_solo(step, reals, other, chosen)
        tie = functional.mse_loss(self._low(other), bands[Band(settings.levels, "LL")].detach())
        real_bands = self.chain.real(augmented) if self.reconstructions.critics else {}
        losses, rec_metrics = self.reconstructions.train(step, real_bands, bands, chosen)
        wanted = list(leaves.values()) if settings.feeds_back else []
        judged = slice(self.solo_count, None)
        labels_judged = None if chosen is None else chosen[judged]
        extras = [settings.image_stage.tie * tie, *solo_losses, *losses]
        shared = self._shared(frequency, blended)
        metrics, gradients = self._train(step, reals[judged], shared, labels_judged, extras, wanted)
        feedback = dict(zip(leaves, gradients, strict=True)) if gradients else {}
        alphas = self.generator.blend.alphas()
        return ImageStepResult(
            blended.detach(), metrics | solo_metrics | rec_metrics | {"tie": float(tie.detach())} | alphas, feedback
        )

    def _shared(self, frequency: Tensor, blended: Tensor) -> Tensor:
        """What D_o judges: the chain's image of the first samples after those of G_o alone, the blend of the others."""
        first = self.solo_count
        chain = first + round(self.settings.image_stage.chain_share * len(blended))
        return torch.cat([frequency[first:chain], blended[chain:]])

    def _train(
        self,
        step: int,
        reals: Tensor,
        fakes: Tensor,
        labels: Tensor | None,
        extras: Sequence[Tensor],
        inputs: list[Tensor],
    ) -> tuple[Metrics, list[Tensor]]:
        """Both updates; metrics, and the gradients of all losses with respect to ``inputs``."""
        real, fake = _pairs(reals, labels), _pairs(fakes, labels)
        metrics = self.contest.train_discriminator(real, fake, step)
        adversarial = self.contest.generator_loss(real, fake)
        weighted = (1 - self.solo_count / self.settings.batch) * adversarial
        gradients = self.contest.update_generator(sum(extras, weighted), step, inputs)
        return metrics | deviations(reals, fakes) | {"loss_g": float(adversarial.detach())}, gradients

    def _train_solo(
        self, step: int, reals: Tensor, other: Tensor, labels: Tensor | None
    ) -> tuple[list[Tensor], Metrics]:
        """The update of the discriminator of G_o alone; G_o's loss by it, weighted by its share, if it has one."""
        if self.solo is None:
            return [], {}
        chosen = slice(self.solo_count)
        rows = None if labels is None else labels[chosen]
        real, fake = _pairs(reals[chosen], rows), _pairs(other[chosen], rows)
        trained = self.solo.train(real, fake, step)
        with torch.no_grad():
            real_logits = self.solo.judge(real)
        loss = generator_loss(self.settings.loss.kind, real_logits, self.solo.judge(fake))
        metrics = {"loss_d_solo": trained["loss_d"], "loss_g_solo": float(loss.detach())}
        return [self.solo_count / self.settings.batch * loss], metrics

    def _discriminator(self, name: str) -> Discriminator:
        settings = self.settings
        sizes = settings.image_stage.discriminator
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(settings.image_size, settings.channels, 0, settings.classes, sizes, emphasis=False)
        return network.to(self.chain.device)

    def _solo_critic(self) -> Critic:
        return Critic(SOLO, self._discriminator(SOLO), self.settings, self.settings.image_size)

    def _low(self, images: Tensor) -> Tensor:
        """Normalised coarsest low band of images."""
        band = Band(self.settings.levels, "LL")
        return self.chain.statistics.normalise(band, self.chain.transform.analyse(images)[band])

    def scale_rate(self, scale: float) -> None:
        """See :meth:`Contest.scale_rate`."""
        self.contest.scale_rate(scale)
        self.reconstructions.scale_rate(scale)
        if self.solo is not None:
            self.solo.scale_rate(scale)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`Contest.tensors`."""
        solo = {} if self.solo is None else named({SOLO: self.solo.tensors()})
        return self.contest.tensors() | self.reconstructions.tensors() | solo

    def scalars(self) -> dict[str, int]:
        """See :meth:`Contest.scalars`."""
        solo = {} if self.solo is None else {f"{SOLO}.{name}": value for name, value in self.solo.scalars().items()}
        return self.contest.scalars() | self.reconstructions.scalars() | solo

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """See :meth:`Contest.load`."""
        self.contest.load(tensors, scalars)
        self.reconstructions.load(tensors, scalars)
        if self.solo is not None:
            own = {name.removeprefix(f"{SOLO}."): v for name, v in scalars.items() if name.startswith(f"{SOLO}.")}
            self.solo.load(under(SOLO, tensors), own)


def _pairs(samples: Tensor, labels: Tensor | None) -> Pairs:
    """Whole images have no condition."""
    return Pairs(samples, None, torch.zeros(len(samples), device=samples.device), labels)


def coarse_noise(chain: Chain, noises: Tensor, choices: Mapping[Band, Tensor]) -> Tensor:
    """The noise (B, n) of the GAN that made each sample's coarsest low band: what G_o shares with the chain.

    The only noise there is where the plan has no GANs.
    """
    band = Band(chain.settings.levels, "LL")
    if not chain.plan.gans:
        return noises[0]
    members = [noises[chain.plan.index(gan)] for gan in chain.plan.members(band)]
    return members[0] if len(members) == 1 else chain.pick(members, choices[band])
