"""The page of all commands, from the functions that the command line is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from launch.cli import app
from launch.tools.markdown import GENERATED, SCALARS, code, interval, markdown_table, plain

TOPICS = {
    "train": "your-own-data.md", "submit": "clusters.md", "status": "monitoring.md",
    "watch": "monitoring.md", "report": "run-folder.md",
    "digest": "run-folder.md", "generate": "your-own-data.md", "plan": "planning.md", "retrain": "retraining.md",
    "models": "retraining.md", "evaluate": "evaluation.md", "compare": "evaluation.md", "tune": "evaluation.md",
    "super-resolve": "editing.md", "edit": "editing.md", "encode": "likelihood-and-encoding.md",
    "decompose": "editing.md", "style": "style.md", "distil": "distillation.md", "shards": "data.md",
    "storage": "data.md",
}  # fmt: skip
"""Pages that tell more, by how the name of a command begins."""

INTRODUCTION = """\
# Commands

`freqgan --help` prints this list and `freqgan COMMAND --help` the options of a command.

* `SRC`, `DST`, `RUN`, `MODEL`, `URL` and `--out` may be local folders or `s3://` URLs. Endpoint and credentials of
  a bucket come from the usual AWS variables (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...), which are never written
  anywhere.
* `RUN` may also be the folder of a [model that is retrained](retraining.md): it then stands for the version in use.
* `SETTINGS` is a preset or a YAML file; `key=value` replaces single settings. See [settings.md](settings.md).
* With `FREQGAN_DEBUG=1` in the environment every error shows its traceback.

| exit code | what it says |
|---|---|
| 0 | The command is done. |
| 2 | The usage or the input is wrong. The message names what, and the remedy. |
| 3 | It failed while it was running, or `verify` found damage. |
| 75 | A signal (SIGTERM or Ctrl-C) stopped the training at a checkpoint. Run the same command again to go on. |
| 130 | Ctrl-C interrupted a command that has nothing to resume. |
"""


@dataclass(frozen=True)
class Command:
    """One command: its full name, and the function behind it, whose docstring and signature typer shows."""

    name: str
    function: Callable[..., object]

    @property
    def paragraphs(self) -> list[str]:
        """The help of the command, paragraph by paragraph."""
        return [" ".join(paragraph.split()) for paragraph in (self.function.__doc__ or "").split("\n\n")]

    @property
    def parameters(self) -> list[Parameter]:
        """The arguments and options of the command, in the order of the signature."""
        hints = get_type_hints(self.function, include_extras=True)
        signature = inspect.signature(self.function).parameters
        annotated = {name: get_args(hints[name]) for name in signature}
        return [Parameter(name, kind, info, signature[name].default) for name, (kind, info) in annotated.items()]


@dataclass(frozen=True)
class Parameter:
    """An argument or option: its name in Python, its type, what typer is told of it, and its default."""

    name: str
    kind: Any
    info: ArgumentInfo | OptionInfo
    default: object

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is inspect.Parameter.empty

    @property
    def is_flag(self) -> bool:
        """Whether it is given without a value."""
        return self.kind is bool

    @property
    def is_list(self) -> bool:
        """Whether several values may be given."""
        return "list[" in str(self.kind)

    @property
    def spelling(self) -> str:
        """How it is written: SETTINGS, --count COUNT, --cut/--whole."""
        placeholder = self.info.metavar or self.name.upper()
        if isinstance(self.info, ArgumentInfo):
            return placeholder
        declared = [text for text in (self.info.default, *(self.info.param_decls or ())) if isinstance(text, str)]
        option = "/".join(declared) or f"--{self.name.replace('_', '-')}"
        return option if self.is_flag else f"{option} {placeholder}"


def commands_page() -> str:
    """Return the page of all commands."""
    listed = list(commands(app))
    links = (f"* [`{one.name}`](#{one.name.replace(' ', '-')}): {plain(one.paragraphs[0])}\n" for one in listed)
    return "\n".join([GENERATED, INTRODUCTION, "".join(links), *map(_command_section, listed)])


def commands(group: typer.Typer, prefix: str = "freqgan") -> Iterator[Command]:
    """Yield every command of a program; those of its groups come last, as ``--help`` lists them."""
    for command in group.registered_commands:
        if command.callback is not None:
            yield Command(f"{prefix} {command.name}", command.callback)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from commands(inner.typer_instance, f"{prefix} {inner.name}")


def usage(command: Command) -> str:
    """Return how a command is called: arguments, then options that are required, then a word for the others."""
    words = [command.name]
    ordered = sorted(command.parameters, key=lambda one: isinstance(one.info, OptionInfo))
    for one in ordered:
        several = " ..." if one.is_list and not one.spelling.endswith("...") else ""
        if one.is_required:
            words.append(one.spelling + several)
        elif isinstance(one.info, ArgumentInfo):
            words.append(f"[{one.spelling}{several}]")
    has_options = any(isinstance(one.info, OptionInfo) and not one.is_required for one in ordered)
    return " ".join([*words, *(["[options]"] if has_options else [])])


def _command_section(command: Command) -> str:
    rows = [(code(one.spelling), _values(one), _default(one), plain(one.info.help or "")) for one in command.parameters]
    table = markdown_table(["argument or option", "takes", "default", "meaning"], rows)
    return "\n".join(
        [f"## {command.name}", "", *(f"{plain(text)}\n" for text in command.paragraphs), f"    {usage(command)}", "",
         table, *_topic(command)]
    )  # fmt: skip


def _topic(command: Command) -> Iterator[str]:
    for prefix, page in TOPICS.items():
        if command.name.startswith(f"freqgan {prefix}"):
            yield f"More about it: [{page}]({page}).\n"


def _values(parameter: Parameter) -> str:
    if parameter.is_flag:
        return "-"
    branches = [branch for branch in get_args(parameter.kind) or (parameter.kind,) if branch is not NoneType]
    kinds = [get_args(branch)[0] if get_origin(branch) is list else branch for branch in branches]
    bounds = interval({"ge": parameter.info.min, "le": parameter.info.max})
    return " or ".join(SCALARS[kind] for kind in kinds) + bounds + (", several" if parameter.is_list else "")


def _default(parameter: Parameter) -> str:
    if parameter.is_required:
        return "required"
    if isinstance(parameter.info.show_default, str):
        return parameter.info.show_default
    if parameter.default is True:
        return f"`{parameter.spelling.partition('/')[0]}`"
    return "-" if parameter.default is False or parameter.default in (None, "") else f"`{parameter.default}`"
