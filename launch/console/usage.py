"""What is wrong with a command line, in one line that names the value and the remedy: typer would draw a box."""

from __future__ import annotations

import re
from typing import Any

import typer

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for a command line; it has no public name for it."""

_SUGGESTION = re.compile(r"\.? (?:\(Possible options:|Did you mean) (.+?)[?)]$")


def is_call_for_help(error: Any) -> bool:
    """Return whether ``error`` is only that a group of commands was called alone, which is answered by its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_message(error: Any) -> str:
    """Return the scene, the value and the remedy of ``error``, which typer raised for a command line."""
    command = error.ctx.command_path if error.ctx else "freqgan"
    return f"{_fault(error)}; `{command} --help` says what there is"


def _fault(error: Any) -> str:
    detail = _refused_value(error)
    if detail is not None:
        wanted = detail["msg"].partition(",")[0].removeprefix("Input should be ")
        return f"{_name(error.param)} {detail['input']}: must be {wanted}"
    message = re.sub(r"^Invalid value for '?([^':]+)'?: ", r"\1: ", error.format_message().strip())
    message = _SUGGESTION.sub(lambda match: f" (did you mean {match[1].replace(chr(39), '')}?)", message)
    message = message.removesuffix(".")
    return message if message.startswith("-") else message[:1].lower() + message[1:]


def _refused_value(error: Any) -> Any:
    """Return what pydantic says of a value that is none of its option; None for any other error."""
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    return details[0] if details and getattr(error, "param", None) is not None else None


def _name(parameter: Any) -> str:
    """Return an option as it is written, or the name of an argument in capitals."""
    option = parameter.param_type_name == "option"
    return str(parameter.opts[0]) if option else str(parameter.metavar or parameter.name).upper()
