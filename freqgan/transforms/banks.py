"""Transforms of four quadrants a level: two filters along each axis, every second sample kept.

Analysis is the ``split`` of a bank made from the analysis filters; synthesis is the ``merge`` (the transpose of
``split``) of a bank made from the synthesis filters. Over all levels, too, each operator is the other's derivative.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, ORIENTATIONS, Band, SubImages
from freqgan.transforms.kernels import kernels_for
from freqgan.transforms.protocol import BandTransform, Quad, as_float, check_even_sides

CHUNK_BYTES = 2**21
"""Of images that are transformed together on a CPU: about what the cache of a core holds."""

SPECTRAL_CHUNK_BYTES = 2**20
"""The same where the spectra between the steps are as large as the images; .25, .5 and 2 MiB were slower."""


class Bank(ABC):
    """A linear operator from an image to its quadrants, and that operator's transpose; of one level, and of several.

    Parts of several levels are a flat list, finest level first, LL, HL, LH and HH of each. Instances hold no tensors.
    """

    @abstractmethod
    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""

    @abstractmethod
    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the transpose of ``split``."""

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """The split of the image, of its low quadrant, and so on."""
        return split_by(self.split, image, levels)

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """The transpose of :meth:`split_levels`; low quadrants that are None, never the coarsest, count as zeros."""
        return merge_by(self.merge, parts)


def split_by(split: Callable[[Tensor], Quad], image: Tensor, levels: int) -> list[Tensor]:
    """The quadrants of ``levels`` levels by the split of one, see :meth:`Bank.split_levels`."""
    parts: list[Tensor] = []
    for _ in range(levels):
        quad = split(image)
        parts += quad
        image = quad.ll
    return parts


def merge_by(merge: Callable[[Quad], Tensor], parts: Sequence[Tensor | None]) -> Tensor:
    """The image of all levels by the merge of one, see :meth:`Bank.merge_levels`."""
    low: Tensor | None = None
    for own, hl, lh, hh in reversed(by_level(parts)):
        low = merge(Quad(added(own, low), hl, lh, hh))
    return added(low, None)


Level = tuple[Tensor | None, Tensor, Tensor, Tensor]


def by_level(parts: Sequence[Tensor | None]) -> list[Level]:
    """A flat list of parts as four to a level."""
    levels: list[Level] = []
    for low, *high in (parts[i : i + 4] for i in range(0, len(parts), 4)):
        hl, lh, hh = (x for x in high if x is not None)
        levels.append((low, hl, lh, hh))
    return levels


def added(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Their sum; of two where one is None the other."""
    if first is None or second is None:
        only = second if first is None else first
        if only is None:
            raise ValueError("the coarsest low band is missing")
        return only
    return first + second


class QuadrantTransform(BandTransform):
    """LL, HL, LH and HH per level by a bank for analysis and one for synthesis; the same where it is orthogonal."""

    def __init__(self, spec: str, levels: int, analysis: Bank, synthesis: Bank | None = None) -> None:
        """Raises InputError when levels < 1."""
        super().__init__(spec, levels)
        self._analysis = Operators(analysis)
        self._synthesis = self._analysis if synthesis is None else Operators(synthesis)

    def analyse_level(self, low: Tensor, level: int = 1) -> Quad:
        """One level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        check_even_sides(self.spec, low)
        (low,) = as_float(low)
        return Quad(*self._analysis.split(low, 1))

    def synthesise_level(self, bands: Sequence[Tensor], level: int = 1) -> Tensor:
        """The (B, C, H, W) image of the four quadrants: the exact inverse of :meth:`analyse_level`."""
        return self._synthesis.merge(*as_float(*bands))

    def analyse(self, image: Tensor) -> SubImages:
        """See :meth:`BandTransform.analyse`; all levels are one operation."""
        parts = self._analysis.split(self._padded(image), self.levels)
        names = (Band(level, o) for level in range(1, self.levels + 1) for o in ORIENTATIONS)
        return dict(zip(names, parts, strict=True))

    def _synthesised(self, low: Tensor, sub_images: SubImages, start: int) -> Tensor:
        given = [(level, sub_images.get(Band(level, o))) for level in range(1, start + 1) for o in HIGH_ORIENTATIONS]
        tensors = as_float(low, *(x for _, x in given if x is not None))
        low, floats = tensors[0], iter(tensors[1:])
        parts: list[Tensor | None] = []
        for number, (level, x) in enumerate(given):
            if number % len(HIGH_ORIENTATIONS) == 0:
                parts.append(low if level == start else None)
            scale = start - level
            shape = (*low.shape[:-2], low.shape[-2] << scale, low.shape[-1] << scale)
            parts.append(low.new_zeros(shape) if x is None else next(floats))
        return self._synthesis.merge(*parts)


@dataclass(frozen=True)
class HaarBank(Bank):
    """The 2 x 2 butterfly: its 4 x 4 matrix is symmetric and orthogonal, its own inverse and its own transpose.

    With pixels a b above c d: LL = (a+b+c+d)/2, HL = (a-b+c-d)/2, LH = (a+b-c-d)/2, HH = (a-b-c+d)/2.
    Rows are combined first, because whole rows are contiguous and the strided half of the work is then on half the
    data: their mean m, and u - m = (u - v) / 2 in place of a difference and a scaling. A few planes at a time, so that
    what is between the two steps stays in the cache. Integers up to 16 bits stay exact in float32 for 4 levels.
    """

    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""
        batch, channels, height, width = image.shape
        quad = Quad(*(image.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
        rows: Tensor | None = None
        for planes, ll, hl, lh, hh in zip(planes_of(image, 1), *(planes_of(band, 4) for band in quad), strict=True):
            if rows is None:
                rows = image.new_empty(2, len(planes), height // 2, width)
            low, high = rows[0, : len(planes)], rows[1, : len(planes)]
            upper = planes[:, 0::2]
            torch.lerp(planes[:, 1::2], upper, 0.5, out=low)
            torch.sub(upper, low, out=high)
            for part, sums, differences in ((low, ll, hl), (high, lh, hh)):
                left, right = part[..., 0::2], part[..., 1::2]
                torch.add(left, right, out=sums)
                torch.sub(left, right, out=differences)
        return quad

    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the inverse and the transpose of ``split``."""
        batch, channels, height, width = quad.ll.shape
        image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
        rows: Tensor | None = None
        for planes, ll, hl, lh, hh in zip(planes_of(image, 1), *(planes_of(band, 4) for band in quad), strict=True):
            if rows is None:
                rows = image.new_empty(2, len(planes), height, 2 * width)
            low, high = rows[0, : len(planes)], rows[1, : len(planes)]
            for part, sums, differences in ((low, ll, hl), (high, lh, hh)):
                torch.add(sums, differences, out=part[..., 0::2])
                torch.sub(sums, differences, out=part[..., 1::2])
            upper = planes[:, 0::2]
            torch.lerp(high, low, 0.5, out=upper)
            torch.sub(upper, high, out=planes[:, 1::2])
        return image

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """See :class:`Bank`."""
        if (kernels := kernels_for(image)) is None:
            return super().split_levels(image, levels)
        return [x for quad in kernels.haar_split(image, levels) for x in quad]

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """See :class:`Bank`."""
        levels = by_level(parts)
        if (kernels := kernels_for(levels[0][1], 4)) is None:
            return super().merge_levels(parts)
        image: Tensor = kernels.haar_merge(levels)
        return image


def planes_of(x: Tensor, share: int) -> tuple[Tensor, ...]:
    """(B, C, h, w) -> its planes (n, h, w), as many at a time as are 1 / ``share`` of a chunk; views where they can be.

    On a GPU all at once; so where there are none.
    """
    planes = x.reshape(-1, *x.shape[-2:])
    if not x.numel() or x.device.type != "cpu":
        return (planes,)
    plane_bytes = share * planes[0].numel() * planes.element_size()
    parts: tuple[Tensor, ...] = planes.split(max(1, CHUNK_BYTES // plane_bytes))  # type: ignore[no-untyped-call]
    return parts


def plane_chunks(planes: Tensor) -> list[slice]:
    """Of planes (n, H, W), n at least 1, those that a cosine or Fourier bank transforms together."""
    count = max(1, SPECTRAL_CHUNK_BYTES // (planes[0].numel() * planes.element_size()))
    return [slice(start, min(start + count, len(planes))) for start in range(0, len(planes), count)]


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
