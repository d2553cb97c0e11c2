"""What every group of settings has in common: which keys it takes, and which kinds of values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

MOST_BITS: Final = 64
AS_STORED: Final = {"as_stored": True}
"""A context of validation for settings that an older version accepted and stored: infinities are left as they are."""


class SettingGroup(BaseModel):
    """Base of all groups of settings; they do not change once they are made.

    Keys that are not known are refused. pydantic would take True for 1, "3" for 3, and infinity and not-a-number for
    numbers: these are refused as well, for none of them is ever what somebody meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _kinds(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context != AS_STORED and info.field_name is not None:
            _check_kind(value, cls.model_fields[info.field_name].annotation)
        return value


def _check_kind(value: Any, kind: Any) -> None:
    """Look into tables and lists; what is of another kind altogether is left to pydantic, which names the place."""
    inner = get_args(kind)
    if hasattr(kind, "__metadata__"):  # of Annotated
        _check_kind(value, inner[0])
    elif get_origin(kind) in (Union, UnionType):
        _check_kind(value, next((branch for branch in inner if branch in (int, float)), None))
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        for key, entry in value.items():
            _check_key(key, inner[0])
            _check_kind(entry, inner[1])
    elif get_origin(kind) is tuple and isinstance(value, list | tuple):
        for entry, entry_kind in zip(value, inner, strict=False):
            _check_kind(entry, entry_kind)
    elif get_origin(kind) is Literal:
        _check_kind(value, int if any(isinstance(choice, int) for choice in inner) else None)
    elif kind in (int, float):
        _check_number(value, "whole number" if kind is int else "number")


def _check_key(key: Any, kind: Any) -> None:
    """Check a key; a whole number may be text, for in JSON all keys are."""
    if kind is int and not isinstance(key, str):
        _check_number(key, "whole number")


def _check_number(value: Any, expected: str) -> None:
    if isinstance(value, bool):
        raise _refused(f"a {expected}, not true or false")
    number = _read(value) if isinstance(value, str) else value
    if isinstance(number, float) and not math.isfinite(number):
        raise _refused(f"a finite {expected}")
    if isinstance(value, str) and number is not None:
        raise _refused(f"a {expected}, not text: without quotes, and without a 0 before it")
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise _refused(f"a {expected} of at most {MOST_BITS} bits")


def _read(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _refused(expected: str) -> PydanticCustomError:
    return PydanticCustomError("kind", "Input should be {expected}", {"expected": expected})


def invalid_values(error: ValidationError) -> str:
    """Return what is wrong with which values, in one line."""
    return "; ".join(map(_detail, error.errors()))


def _detail(detail: Any) -> str:
    place = ".".join(map(str, detail["loc"]))
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return f"{place}: {message}" if place else message
