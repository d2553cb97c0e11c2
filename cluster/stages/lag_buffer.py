"""What a stage keeps of its last steps, for feedback that comes, or is asked for, a fixed number of steps later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from freqgan.errors import RunError

PART = "kept"
LABELS = "labels"

Entry = TypeVar("Entry")


class BandStep(NamedTuple):
    """A step of a band: labels (B,), the ``inputs`` (B, C * bands, h, h) by GAN, and the output for its own rows."""

    labels: Tensor
    inputs: Mapping[str, Tensor]
    output: Tensor


class LagBuffer(ABC, Generic[Entry]):
    """An entry for each of the last ``lag`` steps.

    They are part of a checkpoint: a resumed run applies the same feedback as one that was never stopped.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.steps: dict[int, Entry] = {}

    def add(self, step: int, entry: Entry) -> None:
        """Add ``entry`` for ``step`` and forget what is older than ``lag`` steps."""
        self.steps[step] = entry
        for old in [other for other in self.steps if other <= step - self.lag]:
            del self.steps[old]

    def at(self, step: int) -> Entry:
        """Return the entry of ``step``; RunError when there is none."""
        if step not in self.steps:
            raise RunError(f"nothing is kept of step {step}; there are steps {sorted(self.steps)}")
        return self.steps[step]

    def keys_of(self, name: str) -> list[str]:
        """Return those keys of :meth:`tensors` that hold the tensor ``name`` of a step."""
        return [_key(step, name) for step, entry in self.steps.items() if name in self._to_tensors(entry)]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors (B, ...) of all entries as "kept.<step>.<name>"."""
        return {
            _key(step, name): tensor
            for step, entry in self.steps.items()
            for name, tensor in self._to_tensors(entry).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the entries (B, ...) that :meth:`tensors` gave, among other tensors; KeyError where one is torn."""
        by_step: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, rest = key.partition(".")
            if part == PART:
                step, _, name = rest.partition(".")
                by_step.setdefault(int(step), {})[name] = tensor
        self.steps = {step: self._from_tensors(named) for step, named in by_step.items()}

    @abstractmethod
    def _to_tensors(self, entry: Entry) -> dict[str, Tensor]:
        """Return the tensors of an entry by the names under which they are stored."""

    @abstractmethod
    def _from_tensors(self, tensors: dict[str, Tensor]) -> Entry:
        """Return the entry that has these tensors."""


class BandBuffer(LagBuffer[BandStep]):
    """The last steps of the band ``name``, whose feedback is still to come."""

    def __init__(self, lag: int, name: str) -> None:
        super().__init__(lag)
        self.name = name

    def cut(self, rows: slice) -> None:
        """Leave ``rows`` alone of all outputs."""
        self.steps = {step: entry._replace(output=entry.output[rows]) for step, entry in self.steps.items()}

    def _to_tensors(self, entry: BandStep) -> dict[str, Tensor]:
        return {**entry.inputs, self.name: entry.output, LABELS: entry.labels}

    def _from_tensors(self, tensors: dict[str, Tensor]) -> BandStep:
        inputs = {name: tensor for name, tensor in tensors.items() if name not in (LABELS, self.name)}
        return BandStep(tensors[LABELS], inputs, tensors[self.name])


class GradientBuffer(LagBuffer[Mapping[str, Tensor]]):
    """The image stage's gradients of the last steps, by GAN."""

    def _to_tensors(self, entry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(entry)

    def _from_tensors(self, tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return tensors


def _key(step: int, name: str) -> str:
    return f"{PART}.{step}.{name}"
