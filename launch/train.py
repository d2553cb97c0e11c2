"""Training as a module: ``python -m launch.train SETTINGS [key=value ...]``, the same as ``freqgan train``."""

from __future__ import annotations

import sys

from launch.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
