"""Dictionaries of named values: state of stages by dotted names, metrics as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Metrics = dict[str, float]
State = dict[str, Tensor | int]
"""Tensors of any shape (...) and counters by dotted name, such as "generator.head.mix.weight"."""

Value = TypeVar("Value")


class Stateful(Protocol):
    """Whatever has state in a checkpoint; torch.distributed.checkpoint has a protocol of the same methods."""

    def state_dict(self) -> State:
        """Return the state; its tensors share memory with the object."""

    def load_state_dict(self, state: State) -> None:
        """Replace the state by ``state``, a copy of what :meth:`state_dict` returned; KeyError where a name lacks."""


def add_prefix(part: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return ``values`` under "<part>.<name>"."""
    return {f"{part}.{name}": value for name, value in values.items()}


def strip_prefix(part: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return those of ``values`` whose name begins with "<part>.", with the rest of the name as key."""
    prefix = part + "."
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}


def tensors_of(state: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
    """Return the tensors of ``state``, of any shape (...), without its counters."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def counters_of(state: Mapping[str, Tensor | int]) -> dict[str, int]:
    """Return the counters of ``state`` without its tensors, of any shape (...)."""
    return {name: value for name, value in state.items() if isinstance(value, int)}


def to_numbers(values: Mapping[str, Tensor]) -> Metrics:
    """Return scalar tensors, of shape (), as numbers of Python, fetched from their device all at once."""
    fetched = torch.stack([value.detach() for value in values.values()]).cpu().tolist() if values else []
    return dict(zip(values, fetched, strict=True))
