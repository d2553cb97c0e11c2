"""``python -m tests.benchmarks [NAME ...]``: one line per comparison, and the same in ``bench.json``."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.harness import Comparison

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(wanted: list[str]) -> int:
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"error: no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    rows: list[Comparison] = []
    for name in wanted or NAMES:
        for row in importlib.import_module(f"tests.benchmarks.bench_{name}").comparisons():
            rows.append(row)
            print(
                f"{row.name:46} ours {row.ours:10.4g} {row.unit:9} peer {row.peer:10.4g} {row.unit:9} "
                f"ratio {row.ratio:6.2f}x  ({row.how})",
                flush=True,
            )
    Path("bench.json").write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
