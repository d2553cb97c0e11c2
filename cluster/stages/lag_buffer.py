"""What a stage keeps of its last steps, for feedback that comes, or is asked for, a fixed number of steps later."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from freqgan.errors import RunError

PART = "kept"


class LagBuffer:
    """Named tensors of each of the last ``lag`` steps: a band keeps its inputs, the image stage its gradients.

    They are part of a checkpoint: a resumed run applies the same feedback as one that was never stopped.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.steps: dict[int, dict[str, Tensor]] = {}

    def add(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keeps ``tensors`` for ``step`` and forgets what is older than ``lag`` steps."""
        self.steps[step] = tensors
        for old in [other for other in self.steps if other <= step - self.lag]:
            del self.steps[old]

    def at(self, step: int) -> dict[str, Tensor]:
        """The tensors of ``step``; RunError when they are not kept."""
        if step not in self.steps:
            raise RunError(f"nothing is kept of step {step}; there are steps {sorted(self.steps)}")
        return self.steps[step]

    def cut(self, name: str, rows: slice) -> None:
        """Leaves ``rows`` alone of the tensors ``name``."""
        for tensors in self.steps.values():
            if name in tensors:
                tensors[name] = tensors[name][rows]

    def keys_of(self, name: str) -> list[str]:
        """Those of :meth:`tensors` that hold ``name`` of a step."""
        return [_key(step, name) for step, tensors in self.steps.items() if name in tensors]

    def tensors(self) -> dict[str, Tensor]:
        """All of them as "kept.<step>.<name>"."""
        return {_key(step, name): tensor for step, tensors in self.steps.items() for name, tensor in tensors.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What :meth:`tensors` gave, among other tensors."""
        self.steps = {}
        for key, tensor in tensors.items():
            part, _, rest = key.partition(".")
            if part == PART:
                step, _, name = rest.partition(".")
                self.steps.setdefault(int(step), {})[name] = tensor


def _key(step: int, name: str) -> str:
    return f"{PART}.{step}.{name}"
