"""Components of one run on islands: ``python -m tests.campaigns.islands [--only NAMES] [--moments N] [--minutes M]``.

bytes: the same bytes however a stage is trained. races: two jobs for one component. kills: actors, machines, heads and
drivers killed at random moments; given: the same on a cluster of two hosts. links: images/s behind slow links. soak: a
fault a minute over three islands.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from cluster.ray_engine.address import LOOPBACK_VARIABLE
from tests.campaigns.chaos.processes import MARK, end_marked
from tests.support.s3_server import STORE_VARIABLE

CASES = ("bytes", "races", "kills", "given", "links", "soak")


def case(name: str, moments: int, minutes: float) -> Callable[[Path], int]:
    """What runs it in a folder, prints and returns how much was wrong."""
    from tests.campaigns.islands import kills, links, racing, same_bytes, soak

    cases: dict[str, Callable[[Path], int]] = {
        "bytes": same_bytes.campaign,
        "races": lambda folder: racing.campaign(folder, moments),
        "kills": lambda folder: kills.own_campaign(folder, moments),
        "given": lambda folder: kills.given_campaign(folder, moments),
        "links": links.campaign,
        "soak": lambda folder: soak.campaign(folder, minutes),
    }
    return cases[name]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.islands", description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="of %(default)s")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--store", choices=("moto", "radosgw"), default="radosgw")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request otherwise
    torch.set_num_threads(1)
    os.environ |= {STORE_VARIABLE: given.store, "OMP_NUM_THREADS": "1"}
    os.environ.setdefault(LOOPBACK_VARIABLE, "0")
    os.environ[MARK] = f"islands-{uuid.uuid4().hex}"
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that all is taken away
    wrong = 0
    try:
        for name in given.only.split(","):
            with tempfile.TemporaryDirectory(prefix="islands-") as folder:
                wrong += (lost := case(name, given.moments, given.minutes)(Path(folder)))
                print(f"{name}: {'all right' if not lost else f'{lost} wrong'}", flush=True)
    finally:
        end_marked(os.environ[MARK])
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
