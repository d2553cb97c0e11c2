"""``python -m tests.campaigns.fusion [kills|sizes]`` (``make fusion``): each in a process of its own; 1 if one fails.

A process can be the driver of one Ray cluster only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

PARTS = ("kills", "sizes")


def main(parts: list[str]) -> int:
    """Runs the parts one after the other; how many failed."""
    failed = [part for part in parts if subprocess.run([sys.executable, "-m", __package__, "--in", part]).returncode]
    print(f"wrong: {', '.join(failed) or 'none'}")
    return len(failed)


def run_part(part: str) -> int:
    """Runs one part here; 0 where all was right."""
    from tests.campaigns.fusion.kills import run_kills
    from tests.campaigns.fusion.sizes import run_sizes

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return int(not {"kills": run_kills, "sizes": run_sizes}[part](Path(folder)))


if __name__ == "__main__":
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray is to listen on loopback alone
    inside = sys.argv[1:2] == ["--in"]
    sys.exit(run_part(sys.argv[2]) if inside else main(sys.argv[1:] or list(PARTS)))
