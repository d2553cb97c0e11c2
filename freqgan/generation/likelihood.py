"""Log-likelihoods of images under a chain of flow experts: by the chain rule, one expert after the other.

With an orthonormal transform log p(x) = sum_b log p(band b | bands before it), and a normalised band z = (x - m) / s
has log p(x) = log p(z) - sum log s. Conditions are the image's own bands, without noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.errors import InputError
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.plan import Gan
from freqgan.pixels import HALF_RANGE, from_pixels
from freqgan.seeds import generator_for
from freqgan.sizes import area, width_by_height

STEPS = 16
"""Steps of Heun's method from an image to its noise."""
PROBES = 1
"""Random vectors for the divergence of bands above 64 coefficients; images are averaged, and their probes differ."""


def dequantised(pixels: Tensor, seed: int) -> Tensor:
    """Return stored pixels (B, C, N, N) as floats, whole numbers each drawn evenly from its step of brightness.

    A density of pixels that take whole numbers alone is infinite; with this noise, of one step of the bit depth and
    seeded by ``seed``, its mean log is a lower bound on that of the whole numbers (Theis et al. 2016).
    """
    if pixels.dtype not in HALF_RANGE:
        return from_pixels(pixels)
    places = torch.rand(pixels.shape, generator=generator_for(seed, "dequantise")) - 0.5
    return from_pixels(pixels) + places / HALF_RANGE[pixels.dtype]


def why_no_likelihood(synthesiser: Synthesiser) -> str:
    """Return why no expert of a model has a likelihood of coefficients, or "" where those of the kind flow have one."""
    chain = synthesiser.chain
    if not synthesiser.flows:
        return "no expert is of the kind flow"
    if any(gan.kind == "student" for gan in chain.plan.gans):
        return "students make a band in one step, which has no density that can be computed: ask the run of the teacher"
    if not chain.transform.is_orthonormal(chain.size):
        return f"{chain.transform.spec} is not orthonormal for images of {width_by_height(chain.size)} pixels"
    for group in expert_groups(synthesiser).values():
        mixed = {gan.kind for gan in group}
        if len(mixed) > 1:
            return f"{', '.join(gan.name for gan in group)} are an ensemble of different kinds"
    return ""


def expert_groups(synthesiser: Synthesiser) -> dict[str, list[Gan]]:
    """Return the experts by the name of what they generate: one each, or the members of an ensemble."""
    groups: dict[str, list[Gan]] = {}
    for gan in synthesiser.chain.plan.gans:
        groups.setdefault("+".join(map(str, gan.bands)), []).append(gan)
    return groups


@torch.no_grad()
def log_likelihoods(
    synthesiser: Synthesiser,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: int = STEPS,
    probes: int = PROBES,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return log densities (B,) in nats of the coefficients of each flow expert's bands, given the bands before them.

    They are by what is generated, such as "HL1"; an ensemble is a mixture of its members in equal shares. Where all
    experts are flows their sum is the log density of the images, for pixels in [-1, 1].

    Args:
        synthesiser: the model.
        images: floats (B, C, N, N), real ones after :func:`dequantised`.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        steps: of Heun's method.
        probes: random vectors for the divergence of bands of more than 64 coefficients; smaller ones are exact.
        seed: of these.

    Raises:
        InputError: the model has no such likelihood, see :func:`why_no_likelihood`.

    """
    if why := why_no_likelihood(synthesiser):
        raise InputError(f"log-likelihoods cannot be computed: {why}")
    chain, real = synthesiser.chain, synthesiser.analysed(images.to(synthesiser.chain.device))
    nats: dict[str, Tensor] = {}
    for name, group in expert_groups(synthesiser).items():
        members = [
            _of_member(synthesiser, gan, real, targets, steps=steps, probes=probes, seed=seed)
            for gan in group
            if gan.name in synthesiser.flows
        ]
        if members:
            mixture = torch.stack(members).logsumexp(0) - math.log(len(members))
            logs = sum(float(chain.statistics.stds[band].double().log().sum()) for band in group[0].bands)
            nats[name] = mixture - area(chain.gan_size(group[0])) * logs
    return nats


def _of_member(
    synthesiser: Synthesiser,
    gan: Gan,
    real: SubImages,
    targets: Tensor | None,
    *,
    steps: int,
    probes: int,
    seed: int,
) -> Tensor:
    """Return log densities (B,) of the normalised bands of ``gan``."""
    chain = synthesiser.chain
    band, condition = chain.stacked(gan, real), chain.condition(gan, real)
    own_targets = targets.to(chain.device) if targets is not None and synthesiser.settings.target_layout else None
    strength = torch.zeros(len(band), device=chain.device)
    flow = synthesiser.flows[gan.name]
    return flow.log_likelihood(
        band, condition, strength, own_targets, steps=steps, probes=probes, seed=seed
    ).nats.double()  # fmt: skip


def dimensions_of(synthesiser: Synthesiser) -> dict[str, int]:
    """Return how many coefficients each flow expert generates, by the names of :func:`log_likelihoods`."""
    chain = synthesiser.chain
    return {
        name: chain.gan_channels(group[0]) * area(chain.gan_size(group[0]))
        for name, group in expert_groups(synthesiser).items()
        if group[0].name in synthesiser.flows
    }


def is_whole(synthesiser: Synthesiser) -> bool:
    """Return whether flow experts generate all coefficients of the image, so that their densities multiply to its."""
    pixels = synthesiser.settings.image_channels * area(synthesiser.settings.size)
    return sum(dimensions_of(synthesiser).values()) == pixels


def bits_per_dimension(nats: Tensor, dimensions: int, levels: float) -> Tensor:
    """Return -log p in bits for each of ``dimensions`` numbers, of log densities (...) in nats.

    ``levels`` are the steps of brightness in a unit of the pixels that the density is of: 127.5 for 8 bits in [-1, 1].
    """
    return -nats / (dimensions * math.log(2)) + math.log2(levels)


def total_of(nats: Mapping[str, Tensor]) -> Tensor:
    """Return the sum (B,) of what :func:`log_likelihoods` returned."""
    return torch.stack(list(nats.values())).sum(0)
