"""Dictionaries of tensors: their names as paths, their scalars as numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Metrics = dict[str, float]


def add_prefix(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all parts under "<part>.<name>"."""
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def strip_prefix(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of ``tensors`` whose name begins with "<part>.", with the rest of the name as key."""
    prefix = part + "."
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def to_numbers(values: Mapping[str, Tensor]) -> Metrics:
    """Scalars as Python's numbers, fetched all at once."""
    fetched = torch.stack([value.detach() for value in values.values()]).cpu().tolist() if values else []
    return dict(zip(values, fetched, strict=True))
