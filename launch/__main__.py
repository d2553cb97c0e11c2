"""``python -m launch``, the same as ``freqgan``: for jobs on machines where only the modules are there."""

from __future__ import annotations

from launch.cli import main

if __name__ == "__main__":
    main()
