"""How far a step of workers that share a batch may be from that of one process, from the same state.

Sums of gradients in another order differ by rounding. Where a gradient is 0 but for that, Adam makes steps of full size
of it, so single weights differ by up to such a step; from there on, as in any GAN, differences grow.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

GRADIENTS, WEIGHTS, FREE_SHARE, FREE_STEP = 1e-3, 1e-5, 1e-3, 2e-3
"""Of gradients, the largest of which are about 1; of weights, but for such a share of them, which are within a step."""


def assert_near(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """A state after one step is within rounding of the one that is expected; how far gradients are from each other."""
    differences = {name: (state[name] - x).abs() for name, x in expected.items() if "exp_avg_sq" not in name}
    # With beta1 = 0 the first moment is the gradient itself.
    gradients = max(float(x.max()) for name, x in differences.items() if "adam.exp_avg." in name)
    weights = torch.cat([x.flatten() for name, x in differences.items() if "adam" not in name])
    assert gradients <= GRADIENTS, f"gradients differ by {gradients:.1e}"
    assert float(weights.max()) <= FREE_STEP, f"weights differ by {float(weights.max()):.1e}"
    share = float((weights > WEIGHTS).float().mean())
    assert share <= FREE_SHARE, f"{share:.1e} of the weights differ by more than {WEIGHTS}"
    return gradients
