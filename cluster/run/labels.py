"""The class of images that an option names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cluster.run.checkpoint import Checkpoint
from freqgan.errors import InputError, nearest
from freqgan.generation.synthesiser import Synthesiser
from freqgan.targets import TargetLayout

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


def targets_of_images(count: int, label: int | None, model: Synthesiser, class_names: Sequence[str]) -> Tensor | None:
    """Return the targets of B = ``count`` real images of class ``label``, normalised; None for a model without.

    They are labels (B,) int64, or packed (B, K): those of a model that is shown more than classes are not shown, and
    neither is a class that is not given. ``class_names`` are those of the model, () where none are known.

    Raises:
        InputError: the model has classes alone and none was given, or more than classes and one was.

    """
    layout = model.settings.target_layout
    if not layout.packed:
        return _labels(count, label, layout, class_names)
    if label is not None and len(layout.columns) > 2:
        parts = ", ".join(model.settings.conditioning.kinds)
        raise InputError(
            f"--class: the model is shown {parts} of an image, and a class alone is not all of it; leave --class out, "
            "and it does without"
        )
    rows = torch.zeros(count, layout.width)
    if label is not None:
        rows[:, layout.columns["label"]], rows[:, layout.columns["shown"]] = label, 1
    return model.chain.normalised_targets(rows)


def _labels(count: int, label: int | None, layout: TargetLayout, class_names: Sequence[str]) -> Tensor | None:
    if label is None and layout.classes:
        raise InputError(
            "the model was trained with classes: say which the given images are of by --class; "
            f"{_known(layout.classes, class_names)}"
        )
    return None if label is None else torch.full((count,), label)
