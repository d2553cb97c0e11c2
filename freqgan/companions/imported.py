"""A companion that is any class of the user's, named by the path of its module: "package.module:Class"."""

from __future__ import annotations

import importlib
import math
from typing import Any

from torch import nn

from freqgan.companions.protocol import Companion
from freqgan.errors import InputError, first_line, nearest
from freqgan.model.companion_settings import PoolSettings
from freqgan.model.settings import ModelSettings

REMEDY = "derive it from freqgan.companions.protocol.Companion, which says what each has to do"


def import_companion(path: str, settings: ModelSettings) -> Companion:
    """Return an instance of the class at ``path``, called with the settings of the model.

    Only code that can be imported on this machine by that name is run; nothing of a checkpoint is.

    Raises:
        InputError: no such module or class, it fails when it is called, or it lacks a part of the protocol.

    """
    owner = _import_class(path)
    try:
        companion = owner(settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"image_stage.companion: {path} cannot be built from the settings ({type(error).__name__}: "
            f"{first_line(error)}); its __init__ is called with the settings of the model alone"
        ) from error
    _check(path, companion)
    if companion.passes <= 1 and settings.image_stage.pool != PoolSettings():
        raise InputError(
            f"image_stage.pool: {path} has passes = {companion.passes:g}: a sample takes one pass and needs no pool; "
            "leave it out"
        )
    return companion  # type: ignore[no-any-return]


def _import_class(path: str) -> Any:
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        lacking = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and lacking not in (None, *_packages_of(module_name)):
            raise InputError(
                f"image_stage.companion: module {module_name} of {path} needs {lacking}, which is not there: pip "
                f"install it on every machine that trains"
            ) from error
        raise InputError(
            f"image_stage.companion: module {module_name} of {path} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); install it, or name its folder in PYTHONPATH, on every machine that trains"
        ) from error
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise InputError(
            f"image_stage.companion: {module_name} has no class {name!r}{nearest(name, classes)}; name one "
            "that is there, as module:Class"
        )
    owner = getattr(module, name)
    if not (isinstance(owner, type) and issubclass(owner, nn.Module)):
        raise InputError(f"image_stage.companion: {path} is no class of torch.nn.Module; {REMEDY}")
    return owner


def _packages_of(module_name: str) -> list[str]:
    """Return the module and the packages around it: "a.b.c", "a.b", "a"."""
    parts = module_name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _check(path: str, companion: Any) -> None:
    """Raise InputError unless a module has all that the image stage asks of a companion."""
    missing = [f"{name}()" for name in ("sample", "loss", "prepare") if not callable(getattr(companion, name, None))]
    if missing:
        raise InputError(f"image_stage.companion: {path} has no {', '.join(missing)}; {REMEDY}")
    numbers, passes = getattr(companion, "numbers", None), getattr(companion, "passes", None)
    if not isinstance(numbers, int) or numbers < 1:
        raise InputError(
            f"image_stage.companion: {path} has numbers = {numbers!r}, and it has to be a whole number above 0: how "
            f"many normal numbers a sample is made from; {REMEDY}"
        )
    if not isinstance(passes, int | float) or not (math.isfinite(passes) and passes > 0):
        raise InputError(
            f"image_stage.companion: {path} has passes = {passes!r}, and it has to be a number above 0: about how "
            f"often a sample passes through the network; {REMEDY}"
        )
    if getattr(companion, "is_adversarial", False):
        raise InputError(
            f"image_stage.companion: {path} is_adversarial, and a class of your own is trained by its own loss; leave "
            "is_adversarial out, or use attention, dcgan or resnet"
        )
