"""``python -m tests.campaigns.conditioning [classes|captions] --data SHARDS --images N`` (``make conditioning``)."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from tests.campaigns.conditioning.classes import rows_as_text, run_classes


def main() -> int:
    """Runs one part, and prints its figures."""
    parser = argparse.ArgumentParser(prog="make conditioning")
    parser.add_argument("part", choices=["classes"])
    parser.add_argument("--data", default="../shared/data/cifar10/train-*.tar")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        rows = list(run_classes(arguments.out or Path(folder), arguments.data, arguments.images, say))
    print("\n".join(rows_as_text(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
