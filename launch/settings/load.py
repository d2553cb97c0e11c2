"""Settings of a run: defaults, then a preset or file, then ``key=value``; with messages a person can act on."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cluster.run.settings import RunSettings
from freqgan.errors import InputError, nearest
from freqgan.model.expert_settings import DEFAULT, EXPERT_KINDS
from freqgan.model.plan import PlanSettings
from freqgan.setting_group import AS_STORED
from launch.settings.explain import (
    check_keys,
    explain,
    group_of,
    is_table,
    no_group,
    setting_descriptions,
    unknown_setting,
)
from launch.settings.yaml_text import dump_yaml, parse_yaml, read_text

Values = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
PRESET_KEY = "preset"
SHORTHANDS: dict[str, dict[str, Values]] = {
    "image_stage": {"none": {"enabled": False}},
    "experts": {kind: {DEFAULT: kind} for kind in EXPERT_KINDS},
}
"""What a single word in the place of a group of settings, or of a table, stands for."""
WITHOUT_EXPERTS: Values = {
    "experts": {},
    "generation": {"guidance": {}},
    "image_stage": {"enabled": True},
    "pace": "together",
}
"""What a system without experts of bands has in place of what a preset says of them."""
IMPLIED: dict[tuple[str, str], Values] = {
    ("exchange", "none"): {
        "image_stage": {"enabled": False},
        "teacher_forcing": {"start": 1.0, "end": 1.0},
        "pace": "free",
    },
    ("system", "fusion"): {
        **WITHOUT_EXPERTS,
        "system": "fusion",
        "image_stage": {"enabled": True, "companion": "attention"},
        "plan": PlanSettings().model_dump(),
        "packets": {},
        "loss": {"kind": "hinge"},
    },
    ("system", "single"): {**WITHOUT_EXPERTS, "system": "bands", "plan": {"bands": "none"}},
}
"""Other settings that come with a value of one, over those of a preset; what is given beside it or later wins.

A value that is short for others has another one of the same setting among them."""
_VARIABLE = re.compile(r"\$\{[^}]*\}")


def load_settings(source: str, overrides: list[str]) -> RunSettings:
    """Return the settings of ``source``, a YAML file (a path or s3:// URL) or a preset, changed by ``key=value`` texts.

    Raises:
        InputError: no such file or preset, YAML that cannot be read, an unknown setting (with the nearest
            names), or a value that is refused (with the dotted key, the value and the bound).

    """
    return validate_settings(_overridden(_read_source(source), overrides))


def merged_values(values: Values, texts: list[str]) -> Values:
    """Return ``values`` (nested by group) changed by ``texts``, as they are given on the command line.

    The first may name a YAML file or a preset, all others are ``key=value``; errors as of :func:`load_settings`.
    """
    source = texts[:1] if texts and "=" not in texts[0] else []
    above = _read_source(source[0]) if source else {}
    return _overridden(_merge(copy.deepcopy(values), above), texts[len(source) :])


def _overridden(values: Values, overrides: list[str]) -> Values:
    """Return ``values``, changed in place by ``key=value`` texts."""
    for text in overrides:
        _override(values, text)
    _check_filled_in(values)
    return values


def _check_filled_in(values: Values, group: str = "") -> None:
    """Raise InputError for a variable of a shell that stands where its value should."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_filled_in(value, f"{group}{key}.")
        elif isinstance(value, str) and (match := _VARIABLE.search(value)):
            raise InputError(
                f"{group}{key} = {value!r}: {match[0]} looks like a variable that was not filled in; give its value"
            )


def validate_settings(values: Values, *, stored: bool = False) -> RunSettings:
    """Return ``values`` (nested by group) as settings; errors as of :func:`load_settings`.

    ``stored``: this program wrote them, perhaps an older version, which accepted more.
    """
    return validate(values, RunSettings, stored=stored)


def validate(values: Values, model: type[Model], *, stored: bool = False) -> Model:
    """Return ``values`` (nested by group) as the settings of ``model``.

    Raises:
        InputError: an unknown key, with the nearest names, or a value that is refused.

    """
    check_keys(values, model)
    try:
        return model.model_validate(values, context=AS_STORED if stored else None)
    except ValidationError as error:
        raise InputError(explain(error, model) + _words_text(error)) from error


def _words_text(error: ValidationError) -> str:
    """Return the single words that may stand in the place of refused ones: "; experts may be one word: gan, flow"."""
    texts = []
    for detail in error.errors():
        key, given = detail["loc"][0] if detail["loc"] else "", detail["input"]
        words = [*SHORTHANDS.get(str(key), {}), *(word for name, word in IMPLIED if name == key)]
        if words and len(detail["loc"]) == 1 and isinstance(given, str):
            texts.append(f"; a single word that {key} may be: {', '.join(words)}{nearest(given, words)}")
    return "".join(texts)


def preset_names() -> list[str]:
    """Return the names of the presets that come with this program, sorted."""
    files = resources.files("launch.settings").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def setting_names() -> list[str]:
    """Return the dotted names of all single settings of a run."""
    return list(setting_descriptions(RunSettings))


def dump_settings(settings: RunSettings) -> str:
    """Return all settings as YAML that :func:`load_settings` reads back to equal settings."""
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
    values = {key: _written_out(key, value) for key, value in values.items()}
    values, dotted = _unfold(values, source)
    values = _with_implied(values)
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
    """Return ``above`` over ``base``: groups are merged setting by setting, everything else is replaced whole."""
    merged = dict(base)
    for key, value in above.items():
        inner, old = group_of(group, key), base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = _merge(old, value, inner) if inner and both else value  # type: ignore[arg-type]  # both are dicts
    return merged


def _unfold(values: Values, where: str) -> tuple[Values, Values]:
    """Return ``values`` without the keys that are dotted, as on the command line, and those by their whole names."""
    leaves = list(_leaves(values))
    names = [name for name, _, _ in leaves]
    entries = [f"{name}.{key}" for name, value, _ in leaves if isinstance(value, dict) for key in value]
    dotted = {name: value for name, value, has_dots in leaves if has_dots}
    for name in dotted:
        if (names + entries).count(name) > 1:
            raise InputError(f"{where}: {name} is given twice, with dots and without: leave one of them out")
    return _without_dots(values), dict(sorted(dotted.items(), key=lambda item: item[0].count(".")))


def _leaves(values: Values, prefix: str = "", is_below: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Yield (dotted name, value, whether it was written with dots) of all settings that are no groups."""
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


def _group_named(name: str) -> type[BaseModel] | None:
    """Return the group of a dotted name; None for a single setting and for an unknown one."""
    group: type[BaseModel] | None = RunSettings
    for part in name.split("."):
        group = group_of(group, part) if group else None
    return group


def _is_text(name: str) -> bool:
    """Return whether the setting of a dotted name is text, and so is whatever it is given on the command line."""
    path, _, last = name.rpartition(".")
    group = _group_named(path) if path else RunSettings
    return group is not None and last in group.model_fields and group.model_fields[last].annotation is str


def _override(values: Values, text: str) -> None:
    """Set one ``key=value`` in place; the value is YAML, but text stays text where the setting is text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(
            f"{text!r} is no setting: write key=value, for example levels=3 or optimiser.learning_rate=1e-4"
        )
    if key == PRESET_KEY:
        raise InputError(f"{text}: a preset is named in the place of SETTINGS, or by `preset:` in a settings file")
    parsed = value if _is_text(key) else parse_yaml(value, f"{key}: {value!r} is no valid YAML value")
    full = _written_out(key, parsed)
    if isinstance(parsed, str) and (implied := IMPLIED.get((key, parsed))):
        values.update(_merge(values, {key: parsed} | implied))
    elif full is parsed:
        _place(values, key, parsed)
    else:
        values.update(_merge(values, {key: full}))


def _with_implied(values: Values) -> Values:
    """Return ``values`` over the settings that come with them."""
    for (key, word), implied in IMPLIED.items():
        if values.get(key) == word:
            values = _merge(implied, values) | {key: implied.get(key, word)}
    return values


def _written_out(key: str, value: Any) -> Any:
    """Return the settings that ``value`` of ``key`` stands for; ``value`` itself where it is no shorthand."""
    shorthands = SHORTHANDS.get(key, {})
    if key == "conditioning" and not isinstance(value, dict):
        return {"kinds": value}
    return dict(shorthands[value]) if isinstance(value, str) and value in shorthands else value


def _place(values: Values, key: str, value: Any) -> None:
    """Set what the dotted ``key`` names in place: a setting, or an entry of one that is a table (plan.low_gans.1)."""
    *path, last = key.split(".")
    target = values
    group: type[BaseModel] = RunSettings
    for depth, part in enumerate(path):
        inner, old = group_of(group, part), target.get(part)
        is_last = depth == len(path) - 1 or is_table(group, part)  # a key of a table may have dots: tH1.LL2
        is_entry = inner is None and part in group.model_fields and is_last
        if inner is None and not is_entry:
            raise unknown_setting(key, RunSettings)
        if inner is not None and not isinstance(old, dict | None):
            raise no_group(".".join(path[: depth + 1]), old, inner)
        target[part] = dict(old) if isinstance(old, dict) else {}
        target = target[part]
        if inner is None:
            target[_entry_key(".".join([*path[depth + 1 :], last]))] = value
            return
        group = inner
    target[last] = value


def _entry_key(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text
