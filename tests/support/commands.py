"""The command line as the tests use it: its real entry point, in this process or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from launch.cli import main

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """``freqgan ARGUMENTS`` through ``main`` in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = leaving.value.code
    return Outcome(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)


def command_line(*arguments: object) -> list[str]:
    """The same as a command for a process of its own; run it in ROOT."""
    return [sys.executable, "-m", "launch", *map(str, arguments)]


def run_process(*arguments: object, **environment: str) -> Outcome:
    """``freqgan ARGUMENTS`` as a process."""
    done = subprocess.run(
        command_line(*arguments),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def refused(outcome: Outcome) -> str:
    """The message of a command that refused its input: exit 2, one "error:" on stderr, no traceback, no result."""
    assert outcome.code == 2, outcome
    assert outcome.err.count("error: ") == 1, outcome.err
    assert "Traceback" not in outcome.err, outcome.err
    assert outcome.out == "", outcome.out
    return outcome.err.partition("error: ")[2].strip()
