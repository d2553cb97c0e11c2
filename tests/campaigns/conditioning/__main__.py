"""``python -m tests.campaigns.conditioning classes|captions|mixing`` (``make conditioning``): see each module."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from tests.campaigns.conditioning import captions, classes, likeness, mixing


def main() -> int:
    """Runs one part, and prints its figures."""
    parser = argparse.ArgumentParser(prog="make conditioning")
    parser.add_argument("part", choices=["classes", "captions", "likeness", "mixing"])
    parser.add_argument("--data", default="../shared/data/cifar10/train-*.tar")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--run", help="of mixing: a trained model")
    parser.add_argument("--at", type=int, default=1, help="of mixing: the level")
    parser.add_argument("--encoder", action="store_true", help="of captions: a sentence encoder reads them")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        if arguments.part == "classes":
            lines = classes.rows_as_text(list(classes.run_classes(out, arguments.data, arguments.images, say)))
        elif arguments.part == "likeness":
            lines = likeness.rows_as_text(likeness.run_likeness(out, arguments.data, arguments.images, say))
        elif arguments.part == "mixing":
            lines = mixing.rows_as_text(mixing.run_mixing(out, arguments.run, arguments.at, say))
        else:
            lines = captions.rows_as_text(
                list(captions.run_captions(out, arguments.images, say, encoder=arguments.encoder))
            )
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
