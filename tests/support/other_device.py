"""A device that is not the CPU, on machines that have no other: which tensor is where, without any arithmetic.

Tensors of torch's ``meta`` device have shapes and no values. What a GPU would refuse is refused here (operators over
tensors of two devices), and what needs a value gets a number that means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

OTHER = torch.device("meta")
ATEN = torch.ops.aten
MOVES = {ATEN._to_copy.default, ATEN.copy_.default}


class OtherDevice(TorchDispatchMode):
    """Counts in ``reads`` how often values were fetched from the other device."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [tensor for tensor in tensors if tensor.device == OTHER]
        here = [tensor for tensor in tensors if tensor.device != OTHER and tensor.ndim]
        if there and func is ATEN._local_scalar_dense.default:
            self.reads += 1
            return torch.ones((), dtype=args[0].dtype).item()
        if there and func is ATEN._to_copy.default and torch.device(kwargs.get("device") or OTHER) != OTHER:
            self.reads += 1
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is ATEN.copy_.default and args[0].device != OTHER == args[1].device:
            self.reads += 1
            return args[0].fill_(1)
        if there and here and func not in MOVES:
            raise RuntimeError(f"{func} over two devices: {[(str(t.device), tuple(t.shape)) for t in tensors]}")
        return func(*args, **kwargs)


@contextmanager
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherDevice]:
    """Everything inside computes on ``OTHER``, as far as it has been sent there."""
    autocast = torch.autocast

    def without_values(device_type: str, **options: Any) -> Any:
        return nullcontext() if device_type == OTHER.type else autocast(device_type, **options)

    with monkeypatch.context() as patch, OtherDevice() as device:
        patch.setattr(torch, "autocast", without_values)  # it knows devices that compute only
        yield device
