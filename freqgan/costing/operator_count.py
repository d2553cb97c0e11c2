"""What a training step costs, counted on the operators that it really runs: work, launches, memory.

Multiply-accumulates are those of convolutions and matrix products: all else is under a hundredth of them. First and
second derivatives are counted as they come. torch.utils.flop_counter is not used: it counts the backward of a grouped
convolution as if it were a full one, and does not survive ``torch.autograd.grad`` with respect to leaves (2.13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.needs import stage_needs
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE, stage_names
from freqgan.model.step_graph import StageCall, run_step, step_graph
from freqgan.networks.target_embedding import blank_targets
from freqgan.pixels import to_pixels
from freqgan.seeds import generator_for
from freqgan.tensor_dicts import tensors_of
from freqgan.training.companion_stage import CompanionStage, build_image_stage
from freqgan.training.experts import build_expert
from freqgan.training.fusion import FusionStage
from freqgan.training.image_stage import ImageStage
from freqgan.training.stage import BandExpert, Feedback

BATCH = 2

Stage = BandExpert | ImageStage | CompanionStage | FusionStage


@dataclass(frozen=True)
class StepWork:
    """What a stage does in a step half-way through training.

    Attributes:
        multiply_accumulates: per image, penalties shared out over the steps between them.
        launches: operators that compute something, per step: each is a kernel launch on a GPU.
        parameters: of all networks that are trained.
        fixed_bytes: weights, averages, moments and gradients.
        image_bytes: what an image of the batch adds at the peak, in a step with penalties.

    """

    multiply_accumulates: float
    launches: float
    parameters: int
    fixed_bytes: int
    image_bytes: int


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the operators of the code inside: ``with OperatorCount() as count: ...``.

    Attributes:
        multiply_accumulates: of convolutions and matrix products.
        launches: operators that do not just give another view of their input.
        peak_bytes: of what the code inside has made and still held.

    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_accumulates = self.launches = self.peak_bytes = self._held_bytes = 0
        self._seen: WeakKeyDictionary[Any, None] = WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and count what it does."""
        out = func(*args, **(kwargs or {}))
        counter = COUNTERS.get(func)
        if counter is not None:
            self.multiply_accumulates += counter(args, out)
        self.launches += _computes(func)
        for leaf in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: Any) -> None:
        if storage not in self._seen:
            self._seen[storage] = None
            self._held_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._held_bytes)
            finalize(storage, self._let_go, storage.nbytes())

    def _let_go(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes


@cache
def _computes(func: Any) -> bool:
    """Return whether an operator does more than give another view of its input."""
    aliases = [result.alias_info for result in func._schema.returns]
    return all(alias is None or alias.is_write for alias in aliases)


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


def _attention(args: tuple[Any, ...], out: Any) -> int:
    """Return the products of fused attention: of queries with keys, and of their weights with values."""
    query, key, value = args[:3]
    rows = int(query.numel()) // int(query.shape[-1])
    return rows * int(key.shape[-2]) * int(query.shape[-1] + value.shape[-1])


def _attention_backward(args: tuple[Any, ...], out: Any) -> int:
    """Return the products of its derivatives: the weights once more, and those by weights, values, queries, keys."""
    query, key, value = args[1:4]
    rows = int(query.numel()) // int(query.shape[-1])
    return rows * int(key.shape[-2]) * int(3 * query.shape[-1] + 2 * value.shape[-1])


aten = torch.ops.aten
COUNTERS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.mm.default: _product(0),
    aten.bmm.default: _product(0),
    aten.addmm.default: _product(1),
    aten.baddbmm.default: _product(1),
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward,
}


def training_cost(settings: ModelSettings) -> dict[str, float]:
    """Return multiply-accumulates per image of a step half-way through training, by stage, on the CPU.

    Penalties come every few steps; their cost is shared out over all of them.
    """
    return {name: counted.multiply_accumulates / BATCH for name, counted in _counted(settings, BATCH).items()}


def step_work(settings: ModelSettings) -> dict[str, StepWork]:
    """Return all that is counted of a step, by stage; from steps on two small batches on the CPU."""
    small, large = _counted(settings, BATCH), _counted(settings, 2 * BATCH, only_penalties=True)
    work = {}
    for name, count in small.items():
        image_bytes = (large[name].peak_bytes - count.peak_bytes) // BATCH
        rest_bytes = max(0, count.peak_bytes - BATCH * image_bytes)
        work[name] = StepWork(
            count.multiply_accumulates / BATCH,
            count.launches,
            count.parameters,
            count.state_bytes + rest_bytes,
            image_bytes,
        )
    return work


@dataclass
class _Counts:
    """Counts of one stage: means over the steps between penalties, and the peak of all."""

    parameters: int
    state_bytes: int
    multiply_accumulates: float = 0.0
    launches: float = 0.0
    peak_bytes: int = 0

    def add(self, count: OperatorCount, share: float) -> None:
        self.multiply_accumulates += share * count.multiply_accumulates
        self.launches += share * count.launches
        self.peak_bytes = max(self.peak_bytes, count.peak_bytes)


def _counted(settings: ModelSettings, batch: int, *, only_penalties: bool = False) -> dict[str, _Counts]:
    """Return the counts of a step by stage; of a step with penalties alone where only its peak, the highest, counts."""
    small = settings.model_copy(update={"batch": batch, "precision": "float32"})
    statistics = BandStatistics.from_tensors(unit_statistics(small))
    plan, device, interval = small.band_plan(), torch.device("cpu"), small.loss.penalty_interval
    half = small.images // (2 * batch) // interval * interval
    # A chain for each stage: a stage that has a device to itself shares no work with others.
    stages: dict[str, Stage] = {gan.name: build_expert(Chain(small, statistics, device), gan) for gan in plan.gans}
    if FUSION_STAGE in stage_names(small):
        stages[FUSION_STAGE] = FusionStage(Chain(small, statistics, device))
    elif small.image_stage.enabled:
        stages[IMAGE_STAGE] = build_image_stage(Chain(small, statistics, device))
    totals = {name: _Counts(*_sizes(stage)) for name, stage in stages.items()}
    if IMAGE_STAGE in stages:
        totals[IMAGE_STAGE].multiply_accumulates += _pool_work(stages[IMAGE_STAGE], batch / settings.batch)
    others = 0 if only_penalties else interval - 1
    for step, weight in ((half, 1), (half + 1, others)):  # one with penalties, the others without
        for name, count in _step_counts(step, small, stages) if weight else ():
            totals[name].add(count, weight / interval)
    return totals


def _pool_work(stage: Stage, share: float) -> float:
    """Return the multiply-accumulates that making the samples of a pool ahead adds to ``share`` of a step.

    A sample takes as many passes as its companion says, each as much as a loss does before its derivatives. The pool
    of ``stage`` has samples of zeros after that: making them is no part of any single step.
    """
    trainer = stage.companion_trainer if isinstance(stage, ImageStage | CompanionStage) else None
    if trainer is None or trainer.pool is None:
        return 0.0
    settings, network = stage.chain.settings, trainer.pool.network
    targets = blank_targets(settings.target_layout, 1) if settings.target_layout else None
    images = torch.zeros(1, settings.image_channels, *settings.size)
    with torch.no_grad(), OperatorCount() as count:
        network.loss(images, targets, generator_for("pool"), 0.5)
    trainer.pool.fill(images)
    pool = settings.image_stage.pool
    work: float = share * count.multiply_accumulates * network.passes * pool.size / pool.every
    return work


def _sizes(stage: Stage) -> tuple[int, int]:
    """Return the number of trained parameters, and the bytes of the whole state with a gradient for each of them."""
    state = tensors_of(stage.state_dict())
    moments = [tensor.numel() for name, tensor in state.items() if "_adam.exp_avg_sq." in name]
    return sum(moments), sum(tensor.numel() * tensor.element_size() for tensor in state.values()) + 4 * sum(moments)


def _step_counts(step: int, settings: ModelSettings, stages: Mapping[str, Stage]) -> list[tuple[str, OperatorCount]]:
    """Return the stage and the count of every call of a step."""
    batch = settings.batch
    images = to_pixels(torch.zeros(batch, settings.image_channels, *settings.size), settings.bit_depth)
    targets = blank_targets(settings.target_layout, batch)
    needs, counts = stage_needs(settings), []

    def run_call(call: StageCall, inputs: dict[str, Tensor]) -> Tensor | None:
        stage, wanted, count, output = stages[call.stage], needs[call.stage], OperatorCount(), None
        if call.kind == "step":
            with count:
                inputs = inputs | stage.chain.real_outputs(step, images, wanted.real)
        if isinstance(stage, ImageStage | CompanionStage):
            with count:
                stage.step(step, images, targets, inputs)
        elif call.kind == "forward":
            with count:
                output = stage.forward(step, targets, inputs)
        else:
            feedback = _unit_feedback(stage, step, targets, inputs) if wanted.feedback else None
            with count:
                output = stage.step(step, images, targets, inputs, feedback).output
        counts.append((call.stage, count))
        return output

    run_step(step_graph(settings), run_call)
    return counts


def _unit_feedback(expert: BandExpert, step: int, targets: Tensor, inputs: dict[str, Tensor]) -> Feedback:
    """Return feedback of ones on the inputs of this very step."""
    chain = expert.chain
    gan = chain.plan.gan(expert.name)
    ones = torch.ones(len(targets), chain.gan_channels(gan), *chain.gan_size(gan))
    return Feedback(step, targets, inputs, ones, ones)


def unit_statistics(settings: ModelSettings) -> dict[str, Tensor]:
    """Return mean 0 and deviation 1, (C,) each, for every band: what is counted does not depend on values."""
    layout = settings.band_layout()
    channels = {str(band): settings.channels * layout.coefficients(band.time) for band in layout.bands()}
    zeros = {f"{name}.mean": torch.zeros(count) for name, count in channels.items()}
    return zeros | {f"{name}.std": torch.ones(count) for name, count in channels.items()}
