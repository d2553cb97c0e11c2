"""Memory of the actor that reads shards, over many epochs of CIFAR-10.

``python -m tests.campaigns.epochs [EPOCHS]`` (``make epochs``): the highest resident memory of its process after a
tenth of the epochs, and after all of them. Ends with 1 where it has grown by 5 % or more.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import ray

from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.ray_engine.connection import start_local_ray
from cluster.ray_engine.io_actors import IngestActor

DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
EPOCHS, BATCH, AHEAD = 100, 250, 8
MOST_GROWTH = 1.05
STORE_BYTES = 2**28


def highest_kib(pid: int) -> int:
    """The most that was resident of a process so far, its view of the object store among it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def main(epochs: int) -> int:
    """Prints a line for each tenth."""
    index = build_index(f"{DATA}/train-*.tar")
    start_local_ray(STORE_BYTES)
    try:
        arguments = (partial(BatchReader, index, ImagePolicy(size=32), 0, DataSettings()), BATCH)
        actor: Any = ray.remote(IngestActor).options(num_cpus=0).remote(*arguments)
        pid: Any = ray.get(actor.pid.remote())
        waiting, found = deque[Any](), list[int]()
        steps, tenth = epochs * index.sample_count // BATCH, max(1, epochs // 10) * index.sample_count // BATCH
        begun_s = time.monotonic()
        for step in range(steps):
            waiting.append(actor.batch.options(num_returns=2).remote(step)[0])
            if len(waiting) == AHEAD:
                ray.get(waiting.popleft())
            if (step + 1) % tenth == 0:
                found.append(highest_kib(pid))
                rate = (step + 1) * BATCH / (time.monotonic() - begun_s)
                done = (step + 1) * BATCH // index.sample_count
                print(f"after {done} epochs: {found[-1]} KiB, {rate:.0f} images/s", flush=True)
    finally:
        ray.shutdown()
    growth = found[-1] / found[0]
    print(f"{growth:.3f} times as much at the end")
    return int(growth >= MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else EPOCHS))
