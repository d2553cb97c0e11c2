"""Which compiled kernels transform a tensor: Triton's on a GPU, Numba's of large tensors on a CPU, or none.

No module of kernels is needed: without them, plain torch does the same. Those of filters on GPUs and on CPUs have the
same functions.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import Parameter

LARGE = 2**19
"""Samples from which kernels are used on a CPU: compiling them takes a process a second or two, once."""

CPU_TAPS = 12
"""The longest filter for which kernels on a CPU were faster than products with matrices, at 64 and at 256 pixels."""

_log = logging.getLogger(__name__)


def kernels_for(x: Tensor, image_share: int = 1, taps: int = 2) -> ModuleType | None:
    """Return the kernels for ``x`` (B, C, h, w) and filters of so many ``taps``, or None for plain torch.

    The device, type and size of ``x`` decide.

    ``x`` is 1 / ``image_share`` of the finest image at hand, of which all levels go the same way. With
    TRITON_INTERPRET=1 in the environment those of GPUs run on the CPU too, interpreted: slow, for tests.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return None
    if x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1":
        return _kernels("freqgan.transforms.kernels.gpu", x.device)
    if taps > CPU_TAPS or not _is_large_on_cpu(x, image_share):
        return None
    return _kernels("freqgan.transforms.kernels.cpu", x.device)


def spectral_kernels_for(x: Tensor, bank: str) -> ModuleType | None:
    """Return the kernels for a "cosine" or "fourier" bank of ``x`` (B, C, H, W), on a CPU, or None.

    None stands for SciPy and plain torch.
    """
    if x.dtype not in (torch.float32, torch.float64) or not _is_large_on_cpu(x, 1):
        return None
    return _kernels(f"freqgan.transforms.kernels.{bank}", x.device)


def _is_large_on_cpu(x: Tensor, image_share: int) -> bool:
    if x.device.type != "cpu" or x.numel() * image_share < LARGE:
        return False
    return type(x) in (Tensor, Parameter)


@lru_cache
def _kernels(name: str, device: torch.device) -> ModuleType | None:
    try:
        kernels = importlib.import_module(name)
        kernels.check(device)
    except Exception as error:  # not installed, no compiler, too old a GPU, and whatever else a compiler says
        level = logging.WARNING if device.type == "cuda" else logging.DEBUG
        _log.log(level, "transforms on %s run in plain torch, slower: %s: %s", device, type(error).__name__, error)
        return None
    return kernels
