"""The class of images that an option names."""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.model.settings import ModelSettings


def labels_of(count: int, label: int | None, settings: ModelSettings) -> Tensor | None:
    """Return ``label`` for each of B = ``count`` images, (B,) int64; None for a model without classes.

    Raises:
        InputError: the model has no such class, or has classes and none was given.

    """
    classes = settings.classes
    if label is None:
        if classes:
            raise InputError(f"the model has classes 0 to {classes - 1}: say which the images are of by --label")
        return None
    if label >= classes:
        known = f"0 to {classes - 1}" if classes else "none: it was trained without classes"
        raise InputError(f"--label {label}: the model has classes {known}")
    return torch.full((count,), label)
