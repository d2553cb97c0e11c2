"""A bank as two operators, each the other's derivative: gradients of every order, compiled or not, nothing saved.

They are linear, so that what they make of a tangent is the tangent of what they make; and a batch of vmap's is more
images of the same size, put before them. What torch cannot pass through an operator of one's own goes through products
with whole matrices: torch.func within torch.compile, and the older vmap that torch.autograd has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from freqgan.transforms.arrays import without_autocast
from freqgan.transforms.banks import Bank, merge_by, split_by
from freqgan.transforms.protocol import Quad


class Operators:
    """``split_levels`` and ``merge_levels`` of a bank, differentiable any number of times, compiled or not.

    Each is the other's derivative, and nothing is saved for them. torch.compile calls them as operators of its own, for
    it can look neither into kernels nor into an autograd function within another's backward.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank, self.name = bank, repr(bank)
        _banks[self.name] = bank

    def split(self, image: Tensor, levels: int) -> tuple[Tensor, ...]:
        """Return the quadrants of ``levels`` levels of ``image`` (B, C, H, W), as :meth:`Bank.split_levels` does."""
        if not torch.compiler.is_compiling():
            return _split(image, self.bank, levels)
        if _is_derived_forwards():
            return tuple(_split_densely(image, self.name, levels))
        return tuple(torch.ops.freqgan.split_levels(image, levels, self.name))

    def merge(self, *parts: Tensor | None) -> Tensor:
        """Return the image (B, C, H, W) of ``parts``, as :meth:`Bank.merge_levels` does."""
        if not torch.compiler.is_compiling():
            return _merge(self.bank, *parts)
        return _merge_densely(parts, self.name) if _is_derived_forwards() else _merge_traced(parts, self.name)


_banks: dict[str, Bank] = {}
"""Banks by name: arguments of operators are tensors, numbers and strings."""


def bank_named(name: str) -> Bank:
    """Return the bank that operators of a traced graph have as their argument ``name``."""
    return _banks[name]


class _Split(torch.autograd.Function):
    """An image -> the quadrants of every level, finest first, the low one of each level first."""

    @staticmethod
    def forward(image: Tensor, bank: Bank, levels: int) -> tuple[Tensor, ...]:
        with without_autocast(image.device):
            return tuple(bank.split_levels(image, levels))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank, ctx.levels = inputs[1:]
        ctx.set_materialize_grads(False)
        ctx.shapes = [tuple(x.shape) for x in output]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        if all(x is None for x in gradients):
            return None, None, None
        return _merged(ctx.bank, _filled(gradients, ctx.shapes)), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, ...]:
        return _parted(tangent, ctx.bank, ctx.levels)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], image: Tensor, bank: Bank, levels: int
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        frames = _batched(info.batch_size, in_dims[0], image)
        parts = _split(frames.flatten(0, 1), bank, levels)
        return tuple(x.reshape(*frames.shape[:2], *x.shape[1:]) for x in parts), (0,) * len(parts)


class _Merge(torch.autograd.Function):
    """The transpose of _Split: low bands of levels that are not the coarsest are added, where they are given."""

    @staticmethod
    def forward(bank: Bank, *parts: Tensor | None) -> Tensor:
        device = next(x.device for x in parts if x is not None)
        with without_autocast(device):
            return bank.merge_levels(parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank, ctx.present = inputs[0], [x is not None for x in inputs[1:]]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = _parted(gradient, ctx.bank, len(ctx.present) // 4)
        return None, *(x if present else None for x, present in zip(parts, ctx.present, strict=True))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        return _merged(ctx.bank, tangents)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], bank: Bank, *parts: Tensor | None) -> tuple[Tensor, int]:
        frames = [
            None if x is None else _batched(info.batch_size, dim, x) for dim, x in zip(in_dims[1:], parts, strict=True)
        ]
        image = _merge(bank, *(None if x is None else x.flatten(0, 1) for x in frames))
        return image.reshape(*next(x.shape[:2] for x in frames if x is not None), *image.shape[1:]), 0


# Named here because ``apply`` carries no types.
_split: Callable[..., tuple[Tensor, ...]] = _Split.apply
_merge: Callable[..., Tensor] = _Merge.apply


def _parted(image: Tensor, bank: Bank, levels: int) -> tuple[Tensor, ...]:
    if torch._C._functorch.is_legacy_batchedtensor(image):
        return tuple(_split_densely(image, repr(bank), levels))
    return _split(image, bank, levels)


def _merged(bank: Bank, parts: Sequence[Tensor | None]) -> Tensor:
    if any(x is not None and torch._C._functorch.is_legacy_batchedtensor(x) for x in parts):
        return _merge_densely(parts, repr(bank))
    return _merge(bank, *parts)


def _filled(gradients: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> list[Tensor | None]:
    """Return ``parts`` with zeros where nothing was asked of a band.

    Of low bands that were only on the way there is nothing to add.
    """
    known, last = next(x for x in gradients if x is not None), len(gradients) - 4
    return [
        known.new_zeros(shape) if x is None and (i % 4 or i == last) else x
        for i, (x, shape) in enumerate(zip(gradients, shapes, strict=True))
    ]


def _batched(count: int, dim: int | None, x: Tensor) -> Tensor:
    """Return (count, B, C, h, w) for (..., B, C, h, w), with ``count`` of vmap's along ``dim``, or the same for all."""
    return x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)


# -- the same as products with whole matrices, which torch can do everything to ---------------------


def _is_derived_forwards() -> bool:
    """Return whether torch.compile traces within torch.func or forward mode.

    Operators of one's own know nothing of those.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@torch.library.custom_op("freqgan::channels", mutates_args=())
def _channels(bank: str, side: int, device: torch.device) -> Tensor:
    """Return the low and the high channel of an axis of N = ``side`` samples, (2, N/2, N) float64."""
    return torch.stack(_banks[bank].channels(side)).to(device)


@_channels.register_fake
def _(bank: str, side: int, device: torch.device) -> Tensor:
    return torch.empty(2, side // 2, side, dtype=torch.float64, device=device)


def _split_densely(image: Tensor, bank: str, levels: int) -> list[Tensor]:
    def split(x: Tensor) -> Quad:
        along_y, along_x = (torch.ops.freqgan.channels(bank, side, x.device) for side in x.shape[-2:])
        low, high = (channel @ x.double() for channel in along_y)
        return Quad(*((rows @ channel.mT).to(x.dtype) for rows in (low, high) for channel in along_x))

    with without_autocast(image.device):
        return split_by(split, image, levels)


def _merge_densely(parts: Sequence[Tensor | None], bank: str) -> Tensor:
    def merge(quad: Quad) -> Tensor:
        along_y, along_x = (torch.ops.freqgan.channels(bank, 2 * side, quad.ll.device) for side in quad.ll.shape[-2:])
        ll, hl, lh, hh = (x.double() for x in quad)
        low, high = (first @ along_x[0] + second @ along_x[1] for first, second in ((ll, hl), (lh, hh)))
        image: Tensor = along_y[0].mT @ low + along_y[1].mT @ high
        return image.to(quad.ll.dtype)

    with without_autocast(next(x.device for x in parts if x is not None)):
        return merge_by(merge, parts)


# -- the same for torch.compile --------------------------------------------------------------------


@torch.library.custom_op("freqgan::split_levels", mutates_args=())
def _split_operator(image: Tensor, levels: int, bank: str) -> list[Tensor]:
    with without_autocast(image.device):
        return _banks[bank].split_levels(image, levels)


@_split_operator.register_fake
def _(image: Tensor, levels: int, bank: str) -> list[Tensor]:
    batch, channels, height, width = image.shape
    shapes = ((batch, channels, height >> level, width >> level) for level in range(1, levels + 1))
    return [image.new_empty(shape) for shape in shapes for _ in range(4)]


@torch.library.custom_op("freqgan::merge_levels", mutates_args=())
def _merge_operator(parts: list[Tensor], present: list[bool], bank: str) -> Tensor:
    """Return the image of the ``parts`` that are ``present``: torch differentiates no list with gaps."""
    known = iter(parts)
    with without_autocast(parts[0].device):
        return _banks[bank].merge_levels([next(known) if is_present else None for is_present in present])


@_merge_operator.register_fake
def _(parts: list[Tensor], present: list[bool], bank: str) -> Tensor:
    batch, channels, height, width = parts[int(present[0])].shape  # HL of the finest level
    return parts[0].new_empty(batch, channels, 2 * height, 2 * width)


def _merge_traced(parts: Sequence[Tensor | None], bank: str) -> Tensor:
    known, present = [x for x in parts if x is not None], [x is not None for x in parts]
    image: Tensor = torch.ops.freqgan.merge_levels(known, present, bank)
    return image


def _keep_split(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.bank, ctx.shapes = inputs[2], [tuple(x.shape) for x in output]
    ctx.set_materialize_grads(False)


def _split_backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Tensor | None, None, None]:
    if all(x is None for x in gradients):
        return None, None, None
    return _merge_traced(_filled(gradients, ctx.shapes), ctx.bank), None, None


def _keep_merge(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.present, ctx.bank = inputs[1:]


def _merge_backward(ctx: Any, gradient: Tensor) -> tuple[list[Tensor], None, None]:
    parts = torch.ops.freqgan.split_levels(gradient, len(ctx.present) // 4, ctx.bank)
    return [x for x, present in zip(parts, ctx.present, strict=True) if present], None, None


_split_operator.register_autograd(_split_backward, setup_context=_keep_split)
_merge_operator.register_autograd(_merge_backward, setup_context=_keep_merge)
