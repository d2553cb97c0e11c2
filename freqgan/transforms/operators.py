"""A bank as two operators, each the other's derivative: gradients of every order, compiled or not, nothing saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from freqgan.transforms.banks import Bank


class Operators:
    """``split_levels`` and ``merge_levels`` of a bank, differentiable any number of times, compiled or not.

    Each is the other's derivative, and nothing is saved for them. torch.compile calls them as operators of its own, for
    it can look neither into kernels nor into an autograd function within another's backward.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank, self.name = bank, repr(bank)
        _banks[self.name] = bank

    def split(self, image: Tensor, levels: int) -> tuple[Tensor, ...]:
        """See :meth:`Bank.split_levels`."""
        if torch.compiler.is_compiling():
            return tuple(torch.ops.freqgan.split_levels(image, levels, self.name))
        return _split(image, self.bank, levels)

    def merge(self, *parts: Tensor | None) -> Tensor:
        """See :meth:`Bank.merge_levels`."""
        return _merge_traced(parts, self.name) if torch.compiler.is_compiling() else _merge(self.bank, *parts)


_banks: dict[str, Bank] = {}
"""By name: arguments of operators are tensors, numbers and strings."""


class _Split(torch.autograd.Function):
    """An image -> the quadrants of every level, finest first, the low one of each level first."""

    @staticmethod
    def forward(image: Tensor, bank: Bank, levels: int) -> tuple[Tensor, ...]:
        with torch.autocast(image.device.type, enabled=False):
            return tuple(bank.split_levels(image, levels))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.shapes = [tuple(x.shape) for x in output]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        if all(x is None for x in gradients):
            return None, None, None
        return _merge(ctx.bank, *_filled(gradients, ctx.shapes)), None, None


class _Merge(torch.autograd.Function):
    """The transpose of _Split: low bands of levels that are not the coarsest are added, where they are given."""

    @staticmethod
    def forward(bank: Bank, *parts: Tensor | None) -> Tensor:
        device = next(x.device.type for x in parts if x is not None)
        with torch.autocast(device, enabled=False):
            return bank.merge_levels(parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank, ctx.given = inputs[0], [x is not None for x in inputs[1:]]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = _split(gradient, ctx.bank, len(ctx.given) // 4)
        return None, *(x if given else None for x, given in zip(parts, ctx.given, strict=True))


# Named here because ``apply`` carries no types.
_split: Callable[..., tuple[Tensor, ...]] = _Split.apply
_merge: Callable[..., Tensor] = _Merge.apply


def _filled(gradients: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> list[Tensor | None]:
    """With zeros where nothing was asked of a band; of low bands that were only on the way there is nothing to add."""
    known, last = next(x for x in gradients if x is not None), len(gradients) - 4
    return [
        known.new_zeros(shape) if x is None and (i % 4 or i == last) else x
        for i, (x, shape) in enumerate(zip(gradients, shapes, strict=True))
    ]


# -- the same for torch.compile --------------------------------------------------------------------


@torch.library.custom_op("freqgan::split_levels", mutates_args=())
def _split_operator(image: Tensor, levels: int, bank: str) -> list[Tensor]:
    with torch.autocast(image.device.type, enabled=False):
        return _banks[bank].split_levels(image, levels)


@_split_operator.register_fake
def _(image: Tensor, levels: int, bank: str) -> list[Tensor]:
    batch, channels, height, width = image.shape
    shapes = ((batch, channels, height >> level, width >> level) for level in range(1, levels + 1))
    return [image.new_empty(shape) for shape in shapes for _ in range(4)]


@torch.library.custom_op("freqgan::merge_levels", mutates_args=())
def _merge_operator(parts: list[Tensor], given: list[bool], bank: str) -> Tensor:
    """``parts`` are those that are ``given``: torch differentiates no list with gaps."""
    known = iter(parts)
    with torch.autocast(parts[0].device.type, enabled=False):
        return _banks[bank].merge_levels([next(known) if there else None for there in given])


@_merge_operator.register_fake
def _(parts: list[Tensor], given: list[bool], bank: str) -> Tensor:
    batch, channels, height, width = parts[int(given[0])].shape  # HL of the finest level
    return parts[0].new_empty(batch, channels, 2 * height, 2 * width)


def _merge_traced(parts: Sequence[Tensor | None], bank: str) -> Tensor:
    known, given = [x for x in parts if x is not None], [x is not None for x in parts]
    image: Tensor = torch.ops.freqgan.merge_levels(known, given, bank)
    return image


def _keep_split(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.bank, ctx.shapes = inputs[2], [tuple(x.shape) for x in output]
    ctx.set_materialize_grads(False)


def _split_backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Tensor | None, None, None]:
    if all(x is None for x in gradients):
        return None, None, None
    return _merge_traced(_filled(gradients, ctx.shapes), ctx.bank), None, None


def _keep_merge(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.given, ctx.bank = inputs[1:]


def _merge_backward(ctx: Any, gradient: Tensor) -> tuple[list[Tensor], None, None]:
    parts = torch.ops.freqgan.split_levels(gradient, len(ctx.given) // 4, ctx.bank)
    return [x for x, given in zip(parts, ctx.given, strict=True) if given], None, None


_split_operator.register_autograd(_split_backward, setup_context=_keep_split)
_merge_operator.register_autograd(_merge_backward, setup_context=_keep_merge)
