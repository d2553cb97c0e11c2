"""What CUDA graphs do, on machines without a GPU: operators on fixed memory, replayed without Python.

What a graph could not record is refused here: reading a value, moving tensors between devices, drawing numbers, shapes
that depend on values. What it would record and repeat wrongly is repeated wrongly: numbers that Python computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from freqgan.runtime.graph_capture import CapturedGraph

ATEN = torch.ops.aten
LOOKS = {ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default, ATEN.equal.default}

MASKED = {ATEN.index.Tensor, ATEN.index_put_.default}


class Tape:
    """Counts what it recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = self.operators = 0

    def graph(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        with _Operators() as seen:
            outputs = function()
        self.recorded += 1
        self.operators += len(seen.again)

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for again in seen.again:
                again()

        return CapturedGraph(outputs, replay)


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.again: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        devices = {x.device for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim}
        made = func(*args, **kwargs)
        devices |= {x.device for x in tree_leaves(made) if isinstance(x, Tensor) and x.ndim}
        by_mask = func in MASKED and any(x is not None and x.dtype == torch.bool for x in args[1])
        if func in LOOKS or by_mask or torch.Tag.nondeterministic_seeded in func.tags or len(devices) > 1:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func} on {devices}")
        aliases = [result.alias_info for result in func._schema.returns]
        if any(alias is not None and not alias.is_write for alias in aliases):
            return made  # another view of memory that stays where it is
        written = any(x.alias_info is not None and x.alias_info.is_write for x in func._schema.arguments)
        self.again.append((lambda: func(*args, **kwargs)) if written else lambda: _rewrite(func, args, kwargs, made))
        return made


def _rewrite(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], made: Any) -> None:
    fresh = func(*args, **kwargs)
    for old, new in zip(tree_leaves(made), tree_leaves(fresh), strict=True):
        if isinstance(old, Tensor):
            old.copy_(new)
