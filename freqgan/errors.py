"""The two families of errors that reach a person.

An error says the scene, the numbers and the remedy in one message; ``launch/`` prints that message
on stderr and exits with the class's ``exit_code``. Foreign errors are translated where they are
met, with the cause kept (``raise ... from error``).
"""

from __future__ import annotations


class FreqganError(Exception):
    """Base of every error that is meant to be read; ``exit_code`` is that of the command line."""

    exit_code = 3


class InputError(FreqganError, ValueError):
    """What the user gave cannot be used: a path, an image, a setting or a combination of them."""

    exit_code = 2


class RunError(FreqganError, RuntimeError):
    """The run failed although its input was in order: a worker died, storage gave up, a loss is not finite."""

    exit_code = 3


class DivergedError(RunError):
    """A loss or a gradient of a stage is not finite, or what it makes has collapsed."""


def first_line(error: BaseException) -> str:
    """The first line of the message of ``error`` that is not empty; the name of its type where there is none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, known: list[str], count: int = 3) -> str:
    """Return the ``known`` words most like ``word`` as " (did you mean a, b?)", or "" when none is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=count, cutoff=0.5)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def counted(count: int, noun: str) -> str:
    """Return ``count`` and the ``noun``, with an s where there is not just one: "1 image", "2 images"."""
    return f"{count} {noun}" + "s" * (count != 1)
