"""The page of all settings, from the fields of the settings themselves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.run.settings import MAY_CHANGE, ExecutionSettings, RunSettings
from launch.settings.load import preset_names
from launch.settings.policy import Policy
from launch.tools.markdown import GENERATED, SCALARS, interval, markdown_table, plain

INTRODUCTION = """\
# Settings

A run has the defaults below, then the settings of a preset or a YAML file, then those of `key=value` on the command
line; later ones win. [your-own-data.md](your-own-data.md#a-settings-file) shows how a file is written, and
`freqgan train SETTINGS --dry-run` prints every setting of a run without training.

A setting inside a group is named with a dot: `loss.gamma=1`. "(ray)" stands at settings that only `executor=ray` uses.

When a run is resumed, only settings with "yes" under *may change on resume* may differ: they say where, how long and
how fast the run trains. All others are part of what is computed, and a resume with other values is refused with the
settings that differ.
"""

PRESETS_INTRODUCTION = """\
A preset names where it expects its shards; give your own with `data=`.

| preset | what it is for |
|---|---|
"""

POLICY_INTRODUCTION = """\
The keys of the file that `freqgan retrain` takes; see [retraining.md](retraining.md).
"""


@dataclass(frozen=True)
class Group:
    """A group of settings: its dotted name, its class, what it holds by default, and what its own field says of it."""

    name: str
    kind: type[BaseModel]
    defaults: BaseModel
    description: str


def settings_page() -> str:
    """Return the page of all settings, group by group, and of the keys of a policy."""
    model = [name for name in RunSettings.model_fields if name not in ExecutionSettings.model_fields]
    by_kind: defaultdict[type[BaseModel], list[Group]] = defaultdict(list)
    for group in groups(RunSettings, RunSettings()):
        by_kind[group.kind].append(group)
    return "\n".join(
        [
            GENERATED,
            INTRODUCTION,
            _section("Presets", PRESETS_INTRODUCTION + "".join(_presets())),
            _section("What is trained", _table(RunSettings, RunSettings(), only=model)),
            _section("Where, how long and how fast", _table(ExecutionSettings, RunSettings())),
            *map(_group_section, by_kind.values()),
            _section("Policy of a retraining", POLICY_INTRODUCTION + "\n" + _policy_table()),
        ]
    )


def groups(kind: type[BaseModel], defaults: BaseModel, prefix: str = "") -> Iterator[Group]:
    """Yield every group of settings below ``kind``, outer ones first."""
    for key, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            value = getattr(defaults, key)
            yield Group(prefix + key, inner, value, field.description or "")
            yield from groups(inner, value, f"{prefix}{key}.")


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _presets() -> Iterator[str]:
    folder = resources.files("launch.settings") / "presets"
    for name in preset_names():
        lines = (folder / f"{name}.yaml").read_text("utf-8").splitlines()
        comment = [line.removeprefix("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]
        yield f"| [`{name}`](../launch/settings/presets/{name}.yaml) | {plain(' '.join(comment))} |\n"


def _table(kind: type[BaseModel], defaults: BaseModel, only: Sequence[str] | None = None) -> str:
    """Return the table of the single settings of the outermost group."""
    keys = kind.model_fields if only is None else only
    single = [key for key in keys if not isinstance(getattr(defaults, key), BaseModel)]
    return _settings_table(kind, single, lambda key: _value(getattr(defaults, key)), MAY_CHANGE)


def _settings_table(
    kind: type[BaseModel], keys: Iterable[str], default: Callable[[str], str], may_change: Container[str]
) -> str:
    """Return a table of ``keys``; those in ``may_change`` may differ when a run is resumed."""
    rows = [
        (
            f"`{key}`", takes(kind.model_fields[key]), default(key), "yes" if key in may_change else "no",
            plain(kind.model_fields[key].description or ""),
        )
        for key in keys
    ]  # fmt: skip
    return markdown_table(["setting", "takes", "default", "may change on resume", "meaning"], rows)


def _group_section(same: Sequence[Group]) -> str:
    """Return the section of all groups of one class: their settings are described once."""
    kind = same[0].kind
    title = ", ".join(f"`{group.name}`" for group in same)
    about = " ".join((kind.__doc__ or "").replace("``", "`").split())
    places = "".join(f"* `{group.name}`: {plain(group.description)}\n" for group in same if group.description)
    keys = [key for key in kind.model_fields if not isinstance(getattr(same[0].defaults, key), BaseModel)]
    free = [key for key in keys if all(_may_change(group, key) for group in same)]
    table = _settings_table(kind, keys, lambda key: _default_by_place(key, same), free)
    return _section(title, "\n".join(filter(None, [f"{plain(about)}\n", places, table])))


def _may_change(group: Group, key: str) -> bool:
    return not {group.name.partition(".")[0], f"{group.name}.{key}"}.isdisjoint(MAY_CHANGE)


def _default_by_place(key: str, same: Sequence[Group]) -> str:
    """Return the default, or each of several with the groups that have it."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for group in same:
        places[_value(getattr(group.defaults, key))].append(group.name)
    if len(places) == 1:
        return next(iter(places))
    return "; ".join(f"{value} in {', '.join(f'`{name}`' for name in names)}" for value, names in places.items())


def _policy_table() -> str:
    rows = [
        (f"`{key}`", takes(field), "required" if field.is_required() else _value(field.default),
         plain(field.description or ""))
        for key, field in Policy.model_fields.items()
    ]  # fmt: skip
    return markdown_table(["key", "takes", "default", "meaning"], rows)


def _value(value: object) -> str:
    if value == "":
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


# -- kinds of values -------------------------------------------------------------------------------


def takes(field: FieldInfo) -> str:
    """Return in words which values a setting takes, with its bounds."""
    return kind_text(field.annotation) + _bounds(field.metadata)


def kind_text(kind: Any) -> str:
    """Return a type annotation in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if hasattr(kind, "__metadata__"):  # of Annotated
        (field,) = kind.__metadata__
        return kind_text(inner[0]) + _bounds(field.metadata)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, UnionType):
        return " or ".join(map(kind_text, inner))
    if origin is list or inner[-1:] == (...,):
        return f"list of {kind_text(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: {kind_text(inner[0])}"
    assert origin is dict, f"no words for {kind}"
    return f"table of {kind_text(inner[0])}: {kind_text(inner[1])}"


def _bounds(metadata: Sequence[Any]) -> str:
    keys = ("ge", "gt", "le", "lt")
    return interval({key: getattr(bound, key) for bound in metadata for key in keys if hasattr(bound, key)})
