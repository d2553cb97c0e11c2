"""Settings of a run: defaults, then a preset or file, then ``key=value``; with messages a person can act on."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from pydantic import BaseModel, ValidationError

from cluster.run.settings import RunSettings
from freqgan.errors import InputError, nearest
from freqgan.setting_group import AS_STORED
from launch.settings.yaml_text import dump_yaml, parse_yaml, read_text

Values = dict[str, Any]
PRESET_KEY = "preset"
SHOWN_CHARACTERS = 60
_VARIABLE = re.compile(r"\$\{[^}]*\}")
WORD, SUGGESTIONS = 4, 3
"""Shorter words than WORD letters are parts of too many others: only descriptions that have them alone suggest any."""


def load_settings(source: str, overrides: list[str]) -> RunSettings:
    """The settings of ``source``, a YAML file (a path or s3:// URL) or a preset, changed by ``key=value`` texts.

    Raises:
        InputError: no such file or preset, YAML that cannot be read, an unknown setting (with the nearest
            names), or a value that is refused (with the dotted key, the value and the bound).

    """
    values = _read_source(source)
    for text in overrides:
        _override(values, text)
    _check_filled_in(values)
    return validate_settings(values)


def _check_filled_in(values: Values, group: str = "") -> None:
    """InputError for a variable of a shell that stands where its value should."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_filled_in(value, f"{group}{key}.")
        elif isinstance(value, str) and (match := _VARIABLE.search(value)):
            raise InputError(
                f"{group}{key} = {value!r}: {match[0]} looks like a variable that was not filled in; give its value"
            )


def validate_settings(values: Values, *, stored: bool = False) -> RunSettings:
    """``values`` (nested by group) as settings; ``stored``: by this program. Errors as of :func:`load_settings`."""
    _check_keys(values)
    try:
        return RunSettings.model_validate(values, context=AS_STORED if stored else None)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def preset_names() -> list[str]:
    """The names of the presets that come with this program, sorted."""
    files = resources.files("launch.settings").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def dump_settings(settings: RunSettings) -> str:
    """All settings as YAML that :func:`load_settings` reads back to equal settings."""
    return dump_yaml(settings.model_dump(mode="json"))


# -- reading ---------------------------------------------------------------------------------------


def _read_source(source: str) -> Values:
    if not _names_file(source):
        return _read_preset(source)
    if "://" not in source and not os.path.exists(source):
        known = ", ".join(preset_names())
        raise InputError(f"no such settings file: {source}; give a YAML file or one of the presets {known}")
    values = _parse(read_text(source), source)
    preset = values.pop(PRESET_KEY, None)
    values, dotted = _unfold(values, source)
    if preset is not None:
        values = _merge(_read_preset(str(preset)), values)
    for key, value in dotted.items():
        _place(values, key, value)
    return values


def _names_file(source: str) -> bool:
    return source.endswith((".yaml", ".yml")) or "/" in source or os.path.isfile(source)


def _read_preset(name: str) -> Values:
    known = preset_names()
    if name not in known:
        raise InputError(
            f"no preset or settings file is called {name!r}{nearest(name, known)}; presets are {', '.join(known)}"
        )
    text = (resources.files("launch.settings") / "presets" / f"{name}.yaml").read_text("utf-8")
    return _parse(text, f"preset {name}")


def _parse(text: str, where: str) -> Values:
    values = parse_yaml(text, f"{where} is no valid YAML")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{where} holds a {type(values).__name__}, not settings: write lines like `levels: 3`")
    return values


# -- merging ---------------------------------------------------------------------------------------


def _merge(base: Values, above: Values, group: type[BaseModel] = RunSettings) -> Values:
    """``above`` over ``base``: groups are merged setting by setting, everything else is replaced whole."""
    merged = dict(base)
    for key, value in above.items():
        inner, old = _group_of(group, key), base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = _merge(old, value, inner) if inner and both else value  # type: ignore[arg-type]  # both are dicts
    return merged


def _unfold(values: Values, where: str) -> tuple[Values, Values]:
    """``values`` without the keys that are dotted, as they are on the command line, and those by their whole names."""
    leaves = list(_leaves(values))
    names = [name for name, _, _ in leaves]
    entries = [f"{name}.{key}" for name, value, _ in leaves if isinstance(value, dict) for key in value]
    dotted = {name: value for name, value, has_dots in leaves if has_dots}
    for name in dotted:
        if (names + entries).count(name) > 1:
            raise InputError(f"{where}: {name} is given twice, with dots and without: leave one of them out")
    return _without_dots(values), dict(sorted(dotted.items(), key=lambda item: item[0].count(".")))


def _leaves(values: Values, prefix: str = "", is_below: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(dotted name, value, whether it was written with dots) of all settings that are no groups."""
    for key, value in values.items():
        name, has_dots = f"{prefix}{key}", is_below or "." in str(key)
        if isinstance(value, dict) and _group_named(name):
            yield from _leaves(value, f"{name}.", has_dots)
        else:
            yield name, value, has_dots


def _without_dots(values: Values, prefix: str = "") -> Values:
    nested: Values = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if "." not in str(key):
            is_group = isinstance(value, dict) and _group_named(name) is not None
            nested[key] = _without_dots(value, f"{name}.") if is_group else value
    return nested


def _group_of(group: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The group of settings called ``key`` in ``group``; None for a single setting and for an unknown one."""
    field = group.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _group_named(name: str) -> type[BaseModel] | None:
    """The same by its dotted name."""
    group: type[BaseModel] | None = RunSettings
    for part in name.split("."):
        group = _group_of(group, part) if group else None
    return group


def _is_text(name: str) -> bool:
    """Whether the setting of a dotted name is text, and so is whatever it is given on the command line."""
    path, _, last = name.rpartition(".")
    group = _group_named(path) if path else RunSettings
    return group is not None and last in group.model_fields and group.model_fields[last].annotation is str


def _override(values: Values, text: str) -> None:
    """Sets one ``key=value`` in place; the value is YAML, but text stays text where the setting is text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(
            f"{text!r} is no setting: write key=value, for example levels=3 or optimiser.learning_rate=1e-4"
        )
    if key == PRESET_KEY:
        raise InputError(f"{text}: a preset is named in the place of SETTINGS, or by `preset:` in a settings file")
    parsed = value if _is_text(key) else parse_yaml(value, f"{key}: {value!r} is no valid YAML value")
    _place(values, key, parsed)


def _place(values: Values, key: str, value: Any) -> None:
    """Sets what the dotted ``key`` names in place: a setting, or an entry of one that is a table (plan.low_gans.1)."""
    *path, last = key.split(".")
    target = values
    group: type[BaseModel] = RunSettings
    for depth, part in enumerate(path):
        inner, old = _group_of(group, part), target.get(part)
        is_entry = inner is None and part in group.model_fields and depth == len(path) - 1
        if inner is None and not is_entry:
            raise _unknown_setting(key)
        if inner is not None and not isinstance(old, dict | None):
            raise _no_group(".".join(path[: depth + 1]), old, inner)
        target[part] = dict(old) if isinstance(old, dict) else {}
        target = target[part]
        if inner is None:
            target[_entry_key(last)] = value
            return
        group = inner
    target[last] = value


def _entry_key(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


# -- checking --------------------------------------------------------------------------------------


def setting_names() -> list[str]:
    """All dotted names of single settings."""
    return list(_descriptions())


def _descriptions(group: type[BaseModel] = RunSettings, prefix: str = "") -> dict[str, str]:
    """What every single setting is, by its dotted name."""
    found: dict[str, str] = {}
    for key, field in group.model_fields.items():
        inner = _group_of(group, key)
        found |= _descriptions(inner, f"{prefix}{key}.") if inner else {prefix + key: field.description or ""}
    return found


def _check_keys(values: Mapping[Any, Any], group: type[BaseModel] = RunSettings, prefix: str = "") -> None:
    for key, value in values.items():
        inner = _group_of(group, key) if isinstance(key, str) else None
        if not isinstance(key, str) or key not in group.model_fields:
            raise _unknown_setting(f"{prefix}{key}")
        if inner and not isinstance(value, Mapping):
            raise _no_group(f"{prefix}{key}", value, inner)
        if inner:
            _check_keys(value, inner, f"{prefix}{key}.")


def _no_group(name: str, value: Any, group: type[BaseModel]) -> InputError:
    members = ", ".join(group.model_fields)
    return InputError(f"{name}: is a group of settings and cannot be {_shown(value)}; it holds {members}")


def _unknown_setting(name: str) -> InputError:
    """With the settings of that name in other groups, else the few said to be about it, else those named nearly so."""
    known = _descriptions()
    leaf = name.rpartition(".")[2]
    elsewhere = [other for other in known if other.rpartition(".")[2] == leaf]
    word = re.escape(leaf) if len(leaf) >= WORD else rf"\b{re.escape(leaf)}\b"
    about = [other for other, text in known.items() if re.search(word, text, re.IGNORECASE)]
    hint = nearest(name, list(known))
    if elsewhere or 0 < len(about) <= (SUGGESTIONS if hint else len(known)):
        hint = f" (did you mean {', '.join((elsewhere or about)[:SUGGESTIONS])}?)"
    where = "" if hint else "; `freqgan train SETTINGS --dry-run` prints all settings"
    return InputError(f"unknown setting {name!r}{hint}{where}")


def _explain(error: ValidationError) -> str:
    """Every refused value as "key = value: must be ..."; messages of our own validators as they are.

    pydantic reports a value that fits no branch of a union once per branch: these are joined by "or".
    """
    own: list[str] = []
    wanted: dict[str, list[str]] = {}
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            own.append(str(cause))
            continue
        hint = " (put it in quotes)" if detail["type"] == "string_type" else ""
        message = detail["msg"].removeprefix("Input should be ") + hint
        wanted.setdefault(f"{_dotted(detail['loc'])} = {_shown(detail['input'])}", []).append(message)
    return "; ".join([*own, *(f"{value}: must be {' or '.join(messages)}" for value, messages in wanted.items())])


def _shown(value: Any) -> str:
    """In so many characters; only the outer parts of what is deep, for aliases can make a few lines of YAML huge."""
    text = reprlib.Repr().repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _dotted(location: tuple[int | str, ...]) -> str:
    """The setting a location stands for; the branches of a union that pydantic adds to it are left out."""
    parts = []
    group: type[BaseModel] | None = RunSettings
    for part in location:
        if group is None and isinstance(part, str) and not part.isidentifier():
            continue
        parts.append(str(part))
        group = _group_of(group, str(part)) if group else None
    return ".".join(parts)
