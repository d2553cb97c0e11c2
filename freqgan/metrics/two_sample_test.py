"""A classifier two-sample test on (detail, low band) pairs: can a network tell real pairs from others?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.bands import HIGH_ORIENTATIONS, Band
from freqgan.model.band_statistics import BandMoments
from freqgan.seeds import generator_for, seeded
from freqgan.transforms import parse_transform

STEPS = 300
BATCH = 64
LEARNING_RATE = 2e-3
WIDTH = 32
HELD_OUT = 0.25
TESTED = 64
MOST_IMAGES = 8_000
CROP = 16
"""Side in coefficients of the parts of images that it learns from, 32 pixels: whether detail fits the low band is seen
nearby, and learning from whole images took 15 minutes where they have 256 pixels."""


def critic_scores(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return how well a small network learns to tell the two apart, on images held out from it.

    It sees the level-1 bands of Haar beside LL1, normalised, of images (N, C, H, W) uint8 with even sides; three
    quarters of each side to learn from, in parts of at most 32 pixels, a quarter to be tested on, whole.
    Source: Lopez-Paz and Oquab (2017).

    Returns:
        "" the share it gets right: 0.5 means it cannot; ".log_loss" its mean surprise, nats: ln 2 means it cannot, and
        it still tells apart what is recognised in 99.8 and in 99.9 % of cases.

    """
    count = min(len(reference), len(candidate), MOST_IMAGES)
    pairs = _planes(torch.cat([reference[:count], candidate[:count]]))
    return told_apart(pairs[:count], pairs[count:])


def told_apart(first: Tensor, second: Tensor) -> dict[str, float]:
    """Return how well a small network learns to tell planes (N, K, h, w) of two kinds apart; see above."""
    count, pairs = len(first), torch.cat([first, second])
    targets = torch.arange(2 * count) >= count
    order = torch.arange(count) % round(1 / HELD_OUT) == 0
    held = order.repeat(2)
    network = _train(pairs[~held], targets[~held])
    with torch.no_grad():
        logits = torch.cat([network(chunk) for chunk in torch.split(pairs[held], TESTED)])
    right = (logits > 0) == targets[held]
    log_loss = functional.binary_cross_entropy_with_logits(logits.double(), targets[held].double())
    return {"": float(right.double().mean()), ".log_loss": float(log_loss)}


def critic_accuracy(reference: Tensor, candidate: Tensor) -> float:
    """Return the share of (N, C, H, W) images that :func:`critic_scores` gets right."""
    return critic_scores(reference, candidate)[""]


def _planes(images: Tensor) -> Tensor:
    """Return (N, 4 C, H / 2, W / 2): LL1 and the three high bands, the latter as asinh(3 x), all normalised."""
    bands = parse_transform("dwt:haar", 1).analyse(images.float() / 127.5 - 1)
    moments = BandMoments()
    moments.add(bands)
    normalised = moments.finish().normalise_all(bands)
    high = [torch.asinh(3 * normalised[Band(1, o)]) for o in HIGH_ORIENTATIONS]
    return torch.cat([normalised[Band(1, "LL")], *high], dim=1)


def _train(planes: Tensor, targets: Tensor) -> nn.Module:
    with seeded("critic"):
        network: nn.Module = _Critic(planes.shape[1]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, total_steps=STEPS)
    rng = generator_for("critic", "batches")
    for _ in range(STEPS):
        rows = torch.randint(len(planes), (BATCH,), generator=rng)
        logits = network(_part(planes[rows], rng))
        loss = functional.binary_cross_entropy_with_logits(logits, targets[rows].float())
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
    return network.eval()


def _part(planes: Tensor, rng: torch.Generator) -> Tensor:
    """Return the same part of all ``planes``, drawn at random; all of those that are no larger."""
    for dimension in (2, 3):
        if planes.shape[dimension] > CROP:
            first = int(torch.randint(planes.shape[dimension] - CROP + 1, (), generator=rng))
            planes = planes.narrow(dimension, first, CROP)
    return planes.contiguous(memory_format=torch.channels_last)


class _Critic(nn.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(planes, WIDTH, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.LeakyReLU(0.2), nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.judge = nn.Linear(2 * WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.layers(x).mean(dim=(2, 3))).squeeze(1)
        return logits
