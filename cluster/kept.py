"""What a stage keeps of its last steps, for feedback that comes, or is asked for, a fixed number of steps later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.errors import RunError

Arrays = dict[str, NDArray[np.generic]]
PART = "kept"


class KeptSteps:
    """Named arrays of each of the last ``lag`` steps: a band keeps its inputs, the image stage its gradients.

    They are part of a checkpoint: a resumed run applies the same feedback as one that was never stopped.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.steps: dict[int, Arrays] = {}

    def add(self, step: int, arrays: Arrays) -> None:
        """Keeps ``arrays`` for ``step`` and forgets what is older than ``lag`` steps."""
        self.steps[step] = arrays
        for old in [other for other in self.steps if other <= step - self.lag]:
            del self.steps[old]

    def at(self, step: int) -> Arrays:
        """The arrays of ``step``; RunError when they are not kept."""
        if step not in self.steps:
            raise RunError(f"nothing is kept of step {step}; there are steps {sorted(self.steps)}")
        return self.steps[step]

    def cut(self, name: str, rows: slice) -> None:
        """Leaves ``rows`` alone of the arrays ``name``."""
        for arrays in self.steps.values():
            if name in arrays:
                arrays[name] = arrays[name][rows]

    def keys_of(self, name: str) -> list[str]:
        """Those of :meth:`tensors` that hold the array ``name`` of a step."""
        return [_key(step, name) for step, arrays in self.steps.items() if name in arrays]

    def tensors(self) -> dict[str, Tensor]:
        """All arrays as "kept.<step>.<name>"."""
        return {
            _key(step, name): torch.from_numpy(np.array(array))
            for step, arrays in self.steps.items()
            for name, array in arrays.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What :meth:`tensors` gave, among other tensors."""
        self.steps = {}
        for key, tensor in tensors.items():
            part, _, rest = key.partition(".")
            if part == PART:
                step, _, name = rest.partition(".")
                self.steps.setdefault(int(step), {})[name] = tensor.numpy()


def _key(step: int, name: str) -> str:
    return f"{PART}.{step}.{name}"
