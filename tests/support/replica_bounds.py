"""How far workers that share batches may be from one process: sums of gradients in another order, then Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

NEAR, RELATIVE = 5e-5, 2e-4
FREE, FREE_STEP = "gather.bias", 2e-3
"""A bias whose gradient is 0 but for rounding, of which Adam makes steps of full size."""


def assert_near(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Weights and averages of a state are within rounding of those that are expected."""
    for name, x in expected.items():
        if "adam" not in name:
            limit = FREE_STEP if name.endswith(FREE) else NEAR
            torch.testing.assert_close(state[name], x, rtol=RELATIVE, atol=limit, msg=_about(name))


def _about(name: str) -> Callable[[str], str]:
    return lambda message: f"{name}: {message}"
