"""Every kind of fault at N random moments: ``python -m tests.campaigns.chaos [--only NAME,...] [--moments N]``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cluster.ray_engine.address import LOOPBACK_VARIABLE
from tests.campaigns.chaos.processes import MARK, end_marked
from tests.campaigns.chaos.rows import HEADER, Row

ROOT = Path(__file__).parents[3]
LOGS = ROOT / "build" / "chaos"
CASE_TIMEOUT_S = 1800
CLUSTERED = {"machine"}
"""Cases with a Cluster of several nodes: Ray refuses one where it is told to stay on loopback."""
CASES = (
    "band", "image", "ingest", "replica", "uploader", "machine", "coordinator", "calls", "gcs", "racing", "fenced",
)  # fmt: skip


def case(name: str) -> Callable[[Path, int], Row]:
    """Imported in the process of the case alone."""
    from tests.campaigns.chaos import calls, racing, reruns, stages

    if name in stages.STAGE_CASES:
        return lambda folder, moments: stages.stage_case(name, stages.STAGE_CASES[name], folder, moments)
    others: dict[str, Callable[[Path, int], Row]] = {
        "replica": stages.replica_case,
        "uploader": stages.uploader_case,
        "machine": stages.machine_case,
        "coordinator": reruns.coordinator_case,
        "calls": calls.calls_case,
        "gcs": reruns.gcs_case,
        "racing": racing.racing_case,
        "fenced": racing.fenced_case,
    }
    return others[name]


def run_case(name: str, folder: Path, moments: int) -> Row:
    """In a process of its own, that leaves nothing behind."""
    mark, out = uuid.uuid4().hex, folder / f"{name}.json"
    environment = {key: value for key, value in os.environ.items() if key != LOOPBACK_VARIABLE}
    environment |= {MARK: mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if name not in CLUSTERED:
        environment[LOOPBACK_VARIABLE] = "0"
    command = [sys.executable, "-m", "tests.campaigns.chaos", "--case", name, str(folder), "--moments", str(moments)]
    began_s = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            code = process.wait(CASE_TIMEOUT_S)
            row = Row.load(out.read_text()) if out.exists() else Row(name, wrong=[f"exit code {code}, see {log.name}"])
        except subprocess.TimeoutExpired:
            row = Row(name, wrong=[f"not over after {CASE_TIMEOUT_S} s, see {log.name}"])
        finally:
            end_marked(mark)
    row.took_s = time.monotonic() - began_s
    row.notes.append(f"load average {os.getloadavg()[1]:.0f} of {os.cpu_count()} cores")
    return row


def campaign(names: list[str], moments: int) -> int:
    """Prints a line for each; 0 when all of them hold."""
    print(HEADER, flush=True)
    holds = True
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = run_case(name, Path(folder), moments)
            print(row.text(), flush=True)
            holds &= row.holds
    return int(not holds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.chaos", description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="of %(default)s")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case is None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the case is ended as well
        return campaign(given.only.split(","), given.moments)
    name, folder = given.case
    given.out.write_text(case(name)(Path(folder), given.moments).dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
