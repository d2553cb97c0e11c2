"""Style transfer by the features of VGG19 (Gatys, Ecker and Bethge, "Image Style Transfer Using CNNs", CVPR 2016).

The pixels of an image are optimised until its features are the content's where they stand, and the style's in how they
go together wherever they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.errors import RunError
from freqgan.networks.vgg import Vgg19

CONTENT_LAYER = "conv4_2"
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
STYLE_WEIGHT = 1e6
"""Grams are divided by C H W, and so small: with this weight both losses matter."""
HISTORY = 20
"""Gradients that L-BFGS remembers; each takes the memory of an image."""


class StyleLosses(NamedTuple):
    """Mean squared differences of the content's features, and of the style's Gram matrices summed over layers."""

    content: float
    style: float


class StyledImage(NamedTuple):
    """An image (1, 3, H, W) in [0, 1], and the losses of the content that it began as and of itself."""

    image: Tensor
    first: StyleLosses
    last: StyleLosses


def gram(features: Tensor) -> Tensor:
    """Return F F^T / (C H W) (B, C, C) of features F (B, C, H, W): how channels go together, wherever that is."""
    rows = features.flatten(2)
    return rows @ rows.mT / (rows.shape[1] * rows.shape[2])


def transfer_style(
    network: Vgg19,
    content: Tensor,
    style: Tensor,
    *,
    steps: int,
    style_weight: float = STYLE_WEIGHT,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> StyledImage:
    """Return ``content`` with the style of ``style``, by at most ``steps`` steps of L-BFGS from the content.

    What is minimised is the content's loss, of conv4_2, + ``style_weight`` x the style's, of conv1_1, conv2_1, conv3_1,
    conv4_1 and conv5_1; see :class:`StyleLosses`.

    Args:
        network: with average pooling, as in the paper.
        content: (1, 3, H, W) in [0, 1], at least 32 x 32 pixels, on the device of the network.
        style: (1, 3, h, w) likewise, of any other size.
        steps: each takes one to two passes through the network and back, seldom more.
        style_weight: against 1 of the content.
        advance: is told the steps done, and ``steps``.

    Raises:
        InputError: images that the network does not take.
        RunError: a loss is no finite number.

    """
    loss_of = _Losses(network, content, style)
    pixels = content.detach().clone().requires_grad_(True)
    # No tolerances: gradients of a mean over all pixels are small from the beginning.
    optimiser = torch.optim.LBFGS(
        [pixels], max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        content_loss, style_loss = loss_of(pixels)
        total = content_loss + style_weight * style_loss
        total.backward()  # type: ignore[no-untyped-call]
        return total

    first = loss_of.numbers(pixels)
    for step in range(steps):
        total = float(optimiser.step(closure).detach())  # type: ignore[no-untyped-call]
        if not math.isfinite(total):
            raise RunError(f"the loss is {total} after {step} steps: give a smaller style weight than {style_weight:g}")
        advance(step + 1, steps)
    image = pixels.detach().clamp(0, 1)
    return StyledImage(image, first, loss_of.numbers(image))


class _Losses:
    """Both losses of an image against what is to be kept of content and style."""

    def __init__(self, network: Vgg19, content: Tensor, style: Tensor) -> None:
        self.network = network
        with torch.no_grad():
            self.content = network.features(content, [CONTENT_LAYER])[CONTENT_LAYER]
            self.grams = {name: gram(x) for name, x in network.features(style, STYLE_LAYERS).items()}

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(image, (*STYLE_LAYERS, CONTENT_LAYER))
        content = (features[CONTENT_LAYER] - self.content).square().mean()
        style = torch.stack([(gram(features[name]) - x).square().mean() for name, x in self.grams.items()]).sum()
        return content, style

    @torch.no_grad()
    def numbers(self, image: Tensor) -> StyleLosses:
        return StyleLosses(*map(float, self(image)))
