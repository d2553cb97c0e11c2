"""Settings of a run: defaults, then a preset or file, then ``key=value``; with messages a person can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cluster.settings import RunSettings
from cluster.storage import split_object
from freqgan.errors import InputError, nearest

Values = dict[str, Any]
PRESET_KEY = "preset"
SHOWN_CHARACTERS = 60
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
    return validate_settings(values)


def validate_settings(values: Values) -> RunSettings:
    """``values`` (nested by group) as settings; the errors of :func:`load_settings`."""
    _check_keys(values)
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def preset_names() -> list[str]:
    """The names of the presets that come with this program, sorted."""
    files = resources.files("launch").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def dump_settings(settings: RunSettings) -> str:
    """All settings as YAML that :func:`load_settings` reads back to equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


# -- reading ---------------------------------------------------------------------------------------


def _read_source(source: str) -> Values:
    if not _names_file(source):
        return _read_preset(source)
    values = _parse(_read_text(source), source)
    preset = values.pop(PRESET_KEY, None)
    return values if preset is None else _merge(_read_preset(str(preset)), values)


def _names_file(source: str) -> bool:
    return source.endswith((".yaml", ".yml")) or "/" in source or Path(source).is_file()


def _read_text(source: str) -> str:
    try:
        if "://" not in source and not Path(source).exists():
            known = ", ".join(preset_names())
            raise InputError(f"no such settings file: {source}; give a YAML file or one of the presets {known}")
        folder, name = split_object(source)
        return folder.read(name).decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is no text file ({error.reason} at byte {error.start}); give a YAML file"
        ) from error


def _read_preset(name: str) -> Values:
    known = preset_names()
    if name not in known:
        raise InputError(
            f"no preset or settings file is called {name!r}{nearest(name, known)}; presets are {', '.join(known)}"
        )
    text = (resources.files("launch") / "presets" / f"{name}.yaml").read_text("utf-8")
    return _parse(text, f"preset {name}")


def _parse(text: str, where: str) -> Values:
    try:
        values = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is no valid YAML: {_yaml_problem(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{where} holds a {type(values).__name__}, not settings: write lines like `levels: 3`")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice: YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class, with the check."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or mark is None:
        return str(error)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


# -- merging ---------------------------------------------------------------------------------------


def _merge(base: Values, above: Values, group: type[BaseModel] = RunSettings) -> Values:
    """``above`` over ``base``: groups are merged setting by setting, everything else is replaced whole."""
    merged = dict(base)
    for key, value in above.items():
        inner, old = _group_of(group, key), base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = _merge(old, value, inner) if inner and both else value  # type: ignore[arg-type]  # both are dicts
    return merged


def _group_of(group: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The group of settings called ``key`` in ``group``; None for a single setting and for an unknown one."""
    field = group.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _override(values: Values, text: str) -> None:
    """Sets one ``key=value`` in place; the value is YAML, but text stays text where the setting is text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(
            f"{text!r} is no setting: write key=value, for example levels=3 or optimiser.learning_rate=1e-4"
        )
    if key == PRESET_KEY:
        raise InputError(f"{text}: a preset is named in the place of SETTINGS, or by `preset:` in a settings file")
    *path, last = key.split(".")
    target = values
    group: type[BaseModel] = RunSettings
    for depth, part in enumerate(path):
        inner = _group_of(group, part)
        if inner is None and part not in group.model_fields:
            raise _unknown_setting(key)
        if inner is None:  # a setting that is itself a table, such as plan.low_gans.1=2
            _override_entry(target, part, [*path[depth + 1 :], last], value, key)
            return
        target[part] = dict(target.get(part) or {})
        target, group = target[part], inner
    field = group.model_fields.get(last)
    target[last] = value if field is not None and field.annotation is str else _parse_value(key, value)


def _override_entry(target: Values, setting: str, path: list[str], value: str, key: str) -> None:
    if len(path) != 1:
        raise _unknown_setting(key)
    old = target.get(setting)
    entries = dict(old) if isinstance(old, dict) else {}
    target[setting] = entries | {_parse_value(key, path[0]): _parse_value(key, value)}


def _parse_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{key}: {text!r} is no valid YAML value: {_yaml_problem(error)}") from error


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
            members = ", ".join(inner.model_fields)
            raise InputError(f"{prefix}{key}: is a group of settings and cannot be {value!r}; it holds {members}")
        if inner:
            _check_keys(value, inner, f"{prefix}{key}.")


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
        value = repr(detail["input"])
        shown = value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 3] + "..."
        hint = " (put it in quotes)" if detail["type"] == "string_type" else ""
        message = detail["msg"].removeprefix("Input should be ") + hint
        wanted.setdefault(f"{_dotted(detail['loc'])} = {shown}", []).append(message)
    return "; ".join([*own, *(f"{value}: must be {' or '.join(messages)}" for value, messages in wanted.items())])


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
