"""The class of images that an option names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from freqgan.errors import InputError, nearest
from freqgan.model.settings import ModelSettings

NAMED = 10
"""Most classes that an error lists."""


def class_of(text: str | None, checkpoint: Checkpoint) -> int | None:
    """Return the number of the class that is called ``text``, or has this number; None for None.

    Of classes whose names are numbers, the name counts.

    Raises:
        InputError: the model has no such class.

    """
    if text is None:
        return None
    classes, names = checkpoint.settings.classes, checkpoint.class_names
    if not classes:
        raise InputError(
            f"--class {text}: the model was trained without classes; leave --class out, or train with classes=<number>"
        )
    if text in names:
        return names.index(text)
    if text.isascii() and text.isdecimal() and int(text) < classes:
        return int(text)
    raise InputError(
        f"--class {text}: the model has no such class{nearest(text, list(names))}; {_known(classes, names)}"
    )


def _known(classes: int, names: Sequence[str]) -> str:
    """Return which classes there are."""
    if not names:
        return f"it has {classes} classes, 0 to {classes - 1}, and knows no names of them"
    few = ", ".join(f"{number}={name}" for number, name in enumerate(names[:NAMED]))
    more = f" and {len(names) - NAMED} more, which the report lists" if len(names) > NAMED else ""
    return f"it has {classes}: {few}{more}"


def labels_of(count: int, label: int | None, settings: ModelSettings) -> Tensor | None:
    """Return ``label`` for each of B = ``count`` images, (B,) int64; None for a model without classes.

    Raises:
        InputError: the model has classes and none was given.

    """
    classes = settings.classes
    if label is None:
        if classes:
            raise InputError(f"the model has classes 0 to {classes - 1}: say which the images are of by --class")
        return None
    return torch.full((count,), label)
