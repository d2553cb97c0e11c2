"""How commands end: every error is one line that names the remedy, and an exit code that a scheduler can read."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import NoReturn

import typer

from freqgan.errors import FreqganError, InputError
from launch.console.usage import UsageError, is_call_for_help, usage_message

DEBUG = "FREQGAN_DEBUG"
USAGE_EXIT_CODE = 2
UNEXPECTED_EXIT_CODE = 3


def run_app(app: typer.Typer, arguments: list[str]) -> NoReturn:
    """Run the command that ``arguments`` name and always leave by SystemExit.

    0 done; 2 the input cannot be used; 3 the run failed; 75 stopped, run again to go on; 130 interrupted.
    With FREQGAN_DEBUG=1 every error shows its traceback.
    """
    try:
        _check_text(arguments)
        code = app(args=arguments, prog_name="freqgan", standalone_mode=False)
    except FreqganError as error:
        _show_traceback()
        _fail(str(error), error.exit_code)
    except UsageError as error:
        if is_call_for_help(error):
            error.show()  # type: ignore[attr-defined]  # typer's own
            raise SystemExit(USAGE_EXIT_CODE) from error
        _fail(usage_message(error), USAGE_EXIT_CODE)
    except Exception as error:
        shown = _show_traceback()
        hint = "" if shown else f"; set {DEBUG}=1 to see where"
        _fail(f"unexpected {type(error).__name__}: {error}{hint}", UNEXPECTED_EXIT_CODE)
    raise SystemExit(code if isinstance(code, int) else 0)


def _check_text(arguments: list[str]) -> None:
    """Refuse what no settings file, page or table could hold; names that a terminal cannot show are no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        here = os.getcwd()
    except OSError as error:
        raise InputError(
            f"the current folder is not there any more ({error.strerror}): change to another one"
        ) from error
    for what, text in (("current folder", here), *(("argument", argument) for argument in arguments)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the {what} {text!r} is not UTF-8 (byte {error.start + 1}): give another name; what is called so can "
                "be renamed"
            ) from error


def _show_traceback() -> bool:
    wanted = os.environ.get(DEBUG, "") not in ("", "0")
    if wanted:
        traceback.print_exc()
    return wanted


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(exit_code)
