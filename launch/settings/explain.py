"""What is wrong with settings, in messages a person can act on: dotted key, value, bound, nearest names.

Every function takes the class of the settings: those of a run, or a policy.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from freqgan.errors import InputError, nearest

DRY_RUN = "`freqgan train SETTINGS --dry-run`"
SHOWN_CHARACTERS = 60
WORD, SUGGESTIONS = 4, 3
"""Shorter words than WORD letters are parts of too many others: only descriptions that have them alone suggest any."""
LISTED = 20
"""Settings up to which a message lists them all: those of a policy, not those of a run."""


def group_of(group: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the group of settings called ``key`` in ``group``; None for a single setting and for an unknown one."""
    field = group.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def is_table(group: type[BaseModel], key: str) -> bool:
    """Return whether the setting ``key`` of ``group`` is a table, whose keys are those of the user."""
    field = group.model_fields.get(key)
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return any(get_origin(kind) is dict for kind in kinds)


def setting_descriptions(group: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return the description of every single setting of ``group`` by its dotted name, which begins with ``prefix``."""
    descriptions: dict[str, str] = {}
    for key, field in group.model_fields.items():
        inner = group_of(group, key)
        descriptions |= (
            setting_descriptions(inner, f"{prefix}{key}.") if inner else {prefix + key: field.description or ""}
        )
    return descriptions


def check_keys(values: Mapping[Any, Any], model: type[BaseModel]) -> None:
    """Raise InputError for a key of ``values`` (nested by group) that is no setting of ``model``."""
    _check_keys(values, model, model, "")


def _check_keys(values: Mapping[Any, Any], model: type[BaseModel], group: type[BaseModel], prefix: str) -> None:
    for key, value in values.items():
        inner = group_of(group, key) if isinstance(key, str) else None
        if not isinstance(key, str) or key not in group.model_fields:
            raise unknown_setting(f"{prefix}{key}", model)
        if inner and not isinstance(value, Mapping):
            raise no_group(f"{prefix}{key}", value, inner)
        if inner:
            _check_keys(value, model, inner, f"{prefix}{key}.")


def no_group(name: str, value: Any, group: type[BaseModel]) -> InputError:
    """Return the error of a value where a group of settings is."""
    settings = ", ".join(group.model_fields)
    none = f"{name}=none is short for {name}.enabled=false; " if "enabled" in group.model_fields else ""
    return InputError(f"{name}: is a group of settings and cannot be {_shown(value)}; {none}it holds {settings}")


def unknown_setting(name: str, model: type[BaseModel]) -> InputError:
    """Return the error of a name that is no setting of ``model``, with those that may have been meant.

    These are the settings of that name in other groups, those as deep and in a group of nearly that name first, else
    the few whose descriptions have the word, else those with nearly that name.
    """
    known = setting_descriptions(model)
    leaf = name.rpartition(".")[2]
    elsewhere = [other for other in known if other.rpartition(".")[2] == leaf]
    likeness = {other: SequenceMatcher(None, name, other).ratio() for other in elsewhere}
    elsewhere.sort(key=lambda other: (abs(other.count(".") - name.count(".")), -likeness[other]))
    word = re.escape(leaf) if len(leaf) >= WORD else rf"\b{re.escape(leaf)}\b"
    about = [other for other, text in known.items() if re.search(word, text, re.IGNORECASE)]
    hint = nearest(name, list(known))
    if elsewhere or 0 < len(about) <= (SUGGESTIONS if hint else len(known)):
        hint = f" (did you mean {', '.join((elsewhere or about)[:SUGGESTIONS])}?)"
    everything = f"there are {', '.join(known)}" if len(known) <= LISTED else f"{DRY_RUN} prints all settings"
    return InputError(f"unknown setting {name!r}{hint}{'' if hint else f'; {everything}'}")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return every refused value as "key = value: must be ..."; messages of our own validators as they are.

    pydantic reports a value that fits no branch of a union once per branch: these are joined by "or".
    """
    own: list[str] = []
    wanted: dict[str, list[str]] = {}
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            own.append(str(cause))
            continue
        name = _dotted(detail["loc"], model)
        if isinstance(cause, ValueError):
            own.append(f"{name} = {_shown(detail['input'])}: {cause}")
            continue
        if detail["type"] == "missing":
            own.append(f"{name}: is missing")
            continue
        hint = " (put it in quotes)" if detail["type"] == "string_type" else ""
        message = detail["msg"].removeprefix("Input should be ") + hint
        wanted.setdefault(f"{name} = {_shown(detail['input'])}", []).append(message)
    return "; ".join([*own, *(f"{value}: must be {' or '.join(messages)}" for value, messages in wanted.items())])


def _shown(value: Any) -> str:
    """Return a short text; only the outer parts of what is deep, for aliases can make a few lines of YAML huge."""
    text = reprlib.Repr().repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _dotted(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return the setting that a location stands for, without the branches of a union that pydantic adds to it."""
    parts = []
    group: type[BaseModel] | None = model
    for part in location:
        if group is None and isinstance(part, str) and not part.isidentifier():
            continue
        parts.append(str(part))
        group = group_of(group, str(part)) if group else None
    return ".".join(parts)
