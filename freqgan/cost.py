"""What a training step costs in multiply-accumulates, counted on the operators that it really runs.

Convolutions and matrix products only: all else is under a hundredth of them. First and second derivatives are
counted as they come. torch.utils.flop_counter is not used: it counts the backward of a grouped convolution as if it
were a full one, and does not survive ``torch.autograd.grad`` with respect to leaves (2.13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from freqgan.band_gan import BandGan, Feedback
from freqgan.bands import all_bands
from freqgan.chain import Chain
from freqgan.image_stage import IMAGE_STAGE, ImageStage
from freqgan.settings import ModelSettings
from freqgan.statistics import BandStatistics

BATCH = 2


class MultiplyAccumulates(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts those of the code inside: ``with MultiplyAccumulates() as count: ...; count.total``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs ``func``, and counts it if it multiplies."""
        out = func(*args, **(kwargs or {}))
        counter = COUNTERS.get(func)
        if counter is not None:
            self.total += counter(args, out)
        return out


def _convolution(args: tuple[Any, ...], out: Tensor) -> int:
    weight, transposed = args[1], args[6]
    pixels = args[0] if transposed else out
    return int(weight.numel()) * len(pixels) * pixels.shape[-1] * pixels.shape[-2]


def _convolution_backward(args: tuple[Any, ...], out: Any) -> int:
    gradient, x, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    pixels = x if transposed else gradient
    once = int(weight.numel()) * len(pixels) * int(pixels.shape[-1]) * int(pixels.shape[-2])
    return once * (int(mask[0]) + int(mask[1]))


def _product(first: int) -> Callable[[tuple[Any, ...], Tensor], int]:
    return lambda args, out: int(out.numel()) * int(args[first].shape[-1])


aten = torch.ops.aten
COUNTERS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.mm.default: _product(0),
    aten.bmm.default: _product(0),
    aten.addmm.default: _product(1),
    aten.baddbmm.default: _product(1),
}


def training_cost(settings: ModelSettings) -> dict[str, float]:
    """Multiply-accumulates per image of a step half-way through training, by stage, on the CPU.

    Penalties come every few steps; their cost is shared out over all of them.
    """
    small = settings.model_copy(update={"batch": BATCH, "precision": "float32"})
    statistics = BandStatistics.from_tensors(_unit_statistics(small))
    chain = Chain(small, statistics, torch.device("cpu"))
    interval = small.loss.penalty_interval
    half = small.images // (2 * BATCH) // interval * interval
    gans, image = [BandGan(chain, gan) for gan in chain.plan.gans], ImageStage(chain)
    totals = dict.fromkeys([*(gan.name for gan in gans), IMAGE_STAGE], 0.0)
    for step, weight in ((half, 1), (half + 1, interval - 1)):  # one with penalties, the others without
        for name, count in (_step_cost(step, small, gans, image) if weight else {}).items():
            totals[name] += weight * count / (interval * BATCH)
    return totals


def _step_cost(step: int, settings: ModelSettings, gans: list[BandGan], image: ImageStage) -> dict[str, int]:
    size = settings.image_size
    images = torch.zeros(BATCH, settings.channels, size, size, dtype=torch.uint8)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    outputs: dict[str, Tensor] = {}
    costs: dict[str, int] = dict.fromkeys([gan.name for gan in gans], 0)
    for _ in range(settings.plan.cycles - 1):
        for gan in gans:
            with MultiplyAccumulates() as count:
                outputs[gan.name] = gan.forward(step, labels, outputs)
            costs[gan.name] += count.total
    for gan in gans:
        side = gan.chain.band_side(gan.gan.level)
        shape = (BATCH, settings.channels * len(gan.gan.bands), side, side)
        told = (
            Feedback(step, labels, dict(outputs), torch.ones(shape), torch.ones(shape)) if settings.feeds_back else None
        )
        with MultiplyAccumulates() as count:
            outputs[gan.name] = gan.step(step, images, labels, outputs, told).output
        costs[gan.name] += count.total
    with MultiplyAccumulates() as count:
        image.step(step, images, labels, outputs)
    return costs | {IMAGE_STAGE: count.total}


def _unit_statistics(settings: ModelSettings) -> dict[str, Tensor]:
    """Mean 0 and deviation 1 for every band: what is counted does not depend on values."""
    names = [str(band) for band in all_bands(settings.levels)]
    zeros, ones = torch.zeros(settings.channels), torch.ones(settings.channels)
    return {f"{name}.mean": zeros for name in names} | {f"{name}.std": ones for name in names}
