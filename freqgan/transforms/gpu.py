"""Whether transforms of a tensor go through Triton kernels: on a GPU, where Triton is there and works."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


def kernels_for(x: Tensor) -> ModuleType | None:
    """The kernels to use for ``x``, or None: plain torch.

    With TRITON_INTERPRET=1 in the environment they run on the CPU too, interpreted: slow, for tests.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (x.is_cuda or interpreted) or x.dtype not in (torch.float32, torch.float64):
        return None
    return _kernels(x.device)


@lru_cache
def _kernels(device: torch.device) -> ModuleType | None:
    try:
        import freqgan.transforms.kernels as kernels

        kernels.check(device)
    except Exception as error:  # not installed, no compiler, too old a GPU, and whatever else a compiler says
        _log.warning("transforms on %s run without Triton, slower: %s: %s", device, type(error).__name__, error)
        return None
    return kernels
