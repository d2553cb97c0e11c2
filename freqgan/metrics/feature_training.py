"""Teaches a network what the images of one data set show: by their labels, or else by telling them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.errors import InputError
from freqgan.metrics.feature_network import CHUNK, FeatureNetwork, LearnedFeatures, Task, reduced
from freqgan.metrics.feature_recipe import FEWEST_STEPS, FeatureRecipe
from freqgan.pixels import from_pixels
from freqgan.seeds import generator_for, seeded

HELD_OUT = 5
"""Of every so many images the last one is held out from the network, and its answers are tested on it."""
FEWEST_OF_A_LABEL = 8
"""Images of a label on average, without which labels are not learnt from: names of single images teach nothing."""
MOST_SCALED = 10_000
SHIFT = 1 / 16
VIEWS = 2
EMBEDDING = 64
TEMPERATURE = 0.2
LEAST_AREA = 0.3
CONTRAST, TINT = 0.4, 0.4
"""Contrast is multiplied by 0.6 to 1.4, and the mean of every channel moved by up to a fifth of the range."""


def learn_features(
    images: Tensor,
    labels: Tensor | None,
    recipe: FeatureRecipe,
    note: Callable[[str], None] = lambda _: None,
) -> LearnedFeatures:
    """Return a network that has learnt from four fifths of ``images``, tested on the others.

    It learns their labels where there are at least two. Else it learns which two views are of one image (instance
    discrimination, Chen et al. 2020): parts, flipped or not, of other contrast and tint. On CIFAR-10 without labels
    that saw a missing class better than learning by which quarter turn an image was turned: the kernel distance grew
    6.6-fold without ships and 3.5-fold without cats, in place of 3.8-fold and 2.5-fold, with as many passes.

    The same arguments give the same bytes on one machine, whatever the number of threads that torch is set to: one is
    used.

    Args:
        images: stored pixels (N, C, H, W), uint8 or uint16.
        labels: (N,) int64, below 0 for an image without one; or None.
        recipe: sizes and duration.
        note: told how far it is, four times.

    Raises:
        InputError: fewer than 20 images.

    """
    if len(images) < 4 * HELD_OUT:
        raise InputError(f"{len(images)} images are too few to learn from: at least {4 * HELD_OUT} are needed")
    pixels = reduced(images)
    held = torch.arange(len(pixels)) % HELD_OUT == HELD_OUT - 1
    kinds, targets = (EMBEDDING, None) if labels is None or task_of(labels) == "instance" else _numbered(labels)
    with one_thread():
        with seeded("learned features", recipe.name):
            network = FeatureNetwork(pixels.shape[1], recipe.width, kinds)
        _train(network, pixels[~held], None if targets is None else targets[~held], recipe, note)
        network.fix_scale(pixels[~held][:MOST_SCALED])
        if targets is None:
            answers, accuracy = _test_views(network, pixels[held], recipe)
            return LearnedFeatures(recipe.name, network, "instance", answers, accuracy, 1 / answers)
        accuracy, chance = _test_labels(network, pixels[held], targets[held])
        return LearnedFeatures(recipe.name, network, "label", kinds, accuracy, chance)


def task_of(labels: Tensor) -> Task:
    """Return what images with ``labels`` (N,) are learnt from: labels, if each has one and they are fit to teach."""
    if bool((labels < 0).any()):
        return "instance"
    kinds = len(torch.unique(labels))
    return "label" if kinds > 1 and len(labels) >= FEWEST_OF_A_LABEL * kinds else "instance"


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread in this context: sums over threads are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _numbered(labels: Tensor) -> tuple[int, Tensor]:
    """Return how many labels there are, and (N,) which of them each of ``labels`` (N,) is."""
    kinds, numbers = torch.unique(labels, return_inverse=True)
    return len(kinds), numbers


def _train(
    network: FeatureNetwork,
    pixels: Tensor,
    targets: Tensor | None,
    recipe: FeatureRecipe,
    note: Callable[[str], None],
) -> None:
    steps = max(FEWEST_STEPS, recipe.steps(len(pixels)) // (1 if targets is not None else VIEWS))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, recipe.learning_rate, total_steps=steps, pct_start=max(0.25, 2 / steps)
    )
    rng = generator_for("learned features", recipe.name, "batches")
    for step, rows in enumerate(_batches(len(pixels), recipe.batch, steps, rng)):
        if step % -(-steps // 4) == 0:
            note(f"a network learns what real images show: step {step:,} of {steps:,}")
        x = from_pixels(pixels[rows])
        if targets is None:
            loss = _view_loss(network(torch.cat([_view(x, rng) for _ in range(VIEWS)])))
        else:
            logits = network(_augmented(x, rng))
            loss = functional.cross_entropy(logits, targets[rows], label_smoothing=recipe.label_smoothing)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
    network.eval().requires_grad_(False)


def _batches(count: int, batch: int, steps: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of ``steps`` batches: every image once in a random order, then again in another."""
    size, order = min(batch, count), torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count, generator=rng)
        yield order[:size]
        order = order[size:]


def _augmented(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``x`` (B, C, s, s), each image flipped or not, and all shifted by up to a sixteenth of a side."""
    flips = torch.rand(len(x), generator=rng) < 0.5
    x = torch.where(flips[:, None, None, None], x.flip(3), x)
    side, most = x.shape[-1], max(1, round(x.shape[-1] * SHIFT))
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=rng).tolist()
    padded = functional.pad(x, (most, most, most, most), mode="reflect")
    return padded[:, :, down : down + side, right : right + side]


def _view(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return a random view of each of ``x`` (B, C, s, s): a part of it, flipped or not, of other contrast and tint."""
    count, channels = x.shape[:2]
    side = (LEAST_AREA + (1 - LEAST_AREA) * torch.rand(count, generator=rng)).sqrt()
    across, down = (1 - side) * (2 * torch.rand(2, count, generator=rng) - 1)
    flip = torch.where(torch.rand(count, generator=rng) < 0.5, 1.0, -1.0)
    zero = torch.zeros_like(side)
    corners = torch.stack([torch.stack([side * flip, zero, across], dim=1), torch.stack([zero, side, down], dim=1)], 1)
    grid = functional.affine_grid(corners, list(x.shape), align_corners=False)
    part = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast = 1 + CONTRAST * (2 * torch.rand(count, 1, 1, 1, generator=rng) - 1)
    tint = TINT * (2 * torch.rand(count, channels, 1, 1, generator=rng) - 1)
    mean = part.mean(dim=(2, 3), keepdim=True)
    return mean + contrast * (part - mean) + tint


def _view_loss(embeddings: Tensor) -> Tensor:
    """Return the mean surprise of finding each view's other view among ``embeddings``, (2 B, d): first ones first."""
    unit = functional.normalize(embeddings)
    similar = (unit @ unit.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return functional.cross_entropy(similar, torch.arange(len(unit)).roll(len(unit) // VIEWS))


@torch.no_grad()
def _test_labels(network: FeatureNetwork, pixels: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the share of ``pixels`` (N, C, s, s) whose label is right, and that of the most frequent label."""
    answers = torch.cat([network(from_pixels(chunk)).argmax(dim=1) for chunk in torch.split(pixels, CHUNK)])
    return float((answers == targets).double().mean()), float(targets.bincount().max() / len(targets))


@torch.no_grad()
def _test_views(network: FeatureNetwork, pixels: Tensor, recipe: FeatureRecipe) -> tuple[int, float]:
    """Return among how many images each view's image was looked for, of ``pixels`` (N, C, s, s), and the share found.

    Images that are left over after whole sets are not tested.
    """
    size, rng = min(recipe.batch, len(pixels)), generator_for("learned features", recipe.name, "test")
    right = []
    for chunk in torch.split(pixels[: len(pixels) // size * size], size):
        first, second = (functional.normalize(network(_view(from_pixels(chunk), rng))) for _ in range(VIEWS))
        right.append((first @ second.T).argmax(dim=1) == torch.arange(size))
    return size, float(torch.cat(right).double().mean())
