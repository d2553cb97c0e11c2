"""Losses of a discriminator and its generator, and the zero-centred gradient penalties R1 and R2.

The discriminator minimises discriminator_loss + strength / 2 * (R1 + R2), the generator generator_loss;
R1 is :func:`gradient_penalty` at real samples, R2 at generated ones. Everything is reduced in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freqgan.recipe.settings import LossKind
from freqgan.sizes import Size, area

REFERENCE_SIDE = 32
"""The side of a band, in pixels, at which ``gamma`` acts as it is written in the settings."""


def discriminator_loss(kind: LossKind, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return what the discriminator minimises, a float32 scalar; logits of one shape (...), sample by sample in pairs.

    relativistic: mean softplus(-(D(real) - D(fake))) (Jolicoeur-Martineau 2018, pairing form);
    hinge: mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)) (Lim and Ye 2017).
    """
    real, fake = _paired(real_logits, fake_logits)
    match kind:
        case "relativistic":
            return F.softplus(fake - real).mean()
        case "hinge":
            return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def generator_loss(kind: LossKind, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return what the generator minimises, a float32 scalar.

    relativistic: mean softplus(-(D(fake) - D(real))), the mirror of the discriminator's; hinge: -mean D(fake),
    which does not look at ``real_logits``.
    """
    real, fake = _paired(real_logits, fake_logits)
    match kind:
        case "relativistic":
            return F.softplus(real - fake).mean()
        case "hinge":
            return -fake.mean()


def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """Return the mean over the batch of the squared norm of d sum(logits) / d inputs, a differentiable float32 scalar.

    ``inputs`` (B, ...) must require gradients and ``logits`` have been computed from them, in float32:
    squares of bfloat16 gradients are too coarse. Autocast is off in here, and the caller's backward belongs
    outside of it too, or the derivatives are taken in half precision all the same.
    Source: Mescheder et al. 2018, without their factor 1/2.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(logits.float().sum(), inputs, create_graph=True)
        return gradient.float().square().flatten(1).sum(1).mean()


def noise_penalty(logits: Tensor, moved_logits: Tensor, deviation: float) -> Tensor:
    """Return the mean over the batch of (D(x + deviation e) - D(x))^2 / deviation^2 with e ~ N(0, I), a float32 scalar.

    Its expectation is the squared norm of the gradient, up to O(deviation^2): e' g has variance |g|^2. No second
    derivative is needed. Source: Lin et al. 2025 (APT), there for R1.
    """
    return ((moved_logits.float() - logits.float()) / deviation).square().mean()


def penalty_strength(gamma: float, size: Size) -> float:
    """Return ``gamma`` for a band of h x w = ``size`` pixels: gamma * h w / 32^2.

    The squared gradient of a discriminator falls with the number of pixels it is spread over.
    """
    return gamma * (area(size) / REFERENCE_SIDE**2)


def _paired(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32.

    Unequal shapes are refused, since (B, 1) - (B,) would pair every sample with every other.
    """
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"logits of shapes {tuple(real_logits.shape)} and {tuple(fake_logits.shape)} do not pair")
    return real_logits.float(), fake_logits.float()
