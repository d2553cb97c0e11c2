"""Trainings in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.ray_engine.address import LOOPBACK_VARIABLE

PAIR: dict[str, Any] = {"plan": {"bands": ["LL1", "HL1"]}}


def run_script(script: str, *arguments: Path | str) -> list[str]:
    """The words that a Python script printed, run in a process that has not imported Ray."""
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != LOOPBACK_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=root, env=environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()
