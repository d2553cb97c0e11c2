"""A fault a minute over three islands, each a job with a Ray of its own: are the bytes right, and is memory flat?"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.chaos.memory import MIB, WARM_UP, Trend, slope_per_hour
from tests.campaigns.chaos.processes import command_of, marked, resident_bytes
from tests.campaigns.islands.faults import (
    GCS,
    RAYLET,
    SETTLED_STEPS,
    Fault,
    Tally,
    Watch,
    kill_actor,
    kill_job,
    kill_program,
    strike,
)
from tests.campaigns.islands.jobs import Island, wait_until
from tests.campaigns.islands.kills import BANDS, ENDLESS, START_TIMEOUT_S, running, stopped_right
from tests.support.free_runs import free_settings
from tests.support.runs import write_small_shards

FAULT_EVERY_S = 60.0
SERIES = ("jobs_mib", "workers_mib", "ray_mib", "processes")


@dataclass(frozen=True)
class Sample:
    """What the processes of all islands hold at one moment: jobs, Ray's workers, and the rest of Ray."""

    minute: float
    jobs_mib: float
    workers_mib: float
    ray_mib: float
    processes: int


def sample(minute: float, islands: list[Island]) -> Sample:
    pids = [pid for one in islands for pid in marked(one.mark)]
    commands = {pid: command_of(pid) for pid in pids}

    def held(*kinds: bool) -> float:
        return sum(resident_bytes(pid) for pid, kind in zip(pids, kinds, strict=True) if kind) / MIB

    jobs = ["-m launch train" in commands[pid] for pid in pids]
    workers = [commands[pid].startswith("ray::") for pid in pids]
    rest = [not (job or worker) for job, worker in zip(jobs, workers, strict=True)]
    return Sample(minute, held(*jobs), held(*workers), held(*rest), len(pids))


def trends(samples: list[Sample]) -> list[Trend]:
    """After the warm-up."""
    counted = samples[int(WARM_UP * len(samples)) :]
    minutes = [one.minute for one in counted]
    result = []
    for name in SERIES if len(counted) > 2 else ():
        values = [float(getattr(one, name)) for one in counted]
        result.append(Trend(name, statistics.median(values), slope_per_hour(minutes, values)))
    return result


def strike_for(minutes: float, islands: list[Island], watch: Watch, tally: Tally) -> list[Sample]:
    """A fault a minute, each of another kind and of a random island; a sample before each."""
    rng, done, samples = random.Random(0), Counter[str](), []
    kinds: list[str] = []
    began_s = time.monotonic()
    print(" ".join(f"{name:>12}" for name in ("minute", *SERIES)), " steps, faults", flush=True)
    while (minute := (time.monotonic() - began_s) / 60) < minutes:
        samples.append(found := sample(minute, islands))
        row = " ".join(f"{getattr(found, name):12.1f}" for name in ("minute", *SERIES))
        print(row, f" {watch.farthest} {dict(done)}", flush=True)
        island = rng.choice(islands)
        faults: dict[str, Fault] = {
            "actor": kill_actor(island),
            "driver": kill_job(island),
            "head": kill_program(island, GCS),
            "machine": kill_program(island, RAYLET),
        }
        kinds = kinds or rng.sample(sorted(faults), len(faults))
        kind = kinds.pop()
        if not strike(faults[kind], tally, watch, rng):
            break
        done[kind] += 1
        time.sleep(max(0.0, began_s + FAULT_EVERY_S * (sum(done.values())) - time.monotonic()))
    return samples


def campaign(folder: Path, minutes: float) -> int:
    """How much is wrong: bytes, steps lost by others, memory that grows."""
    settings = free_settings(folder / "soak", write_small_shards(folder), **ENDLESS)
    islands = [Island(settings, (band,), folder) for band in BANDS]
    tally = Tally("a fault a minute")
    with running(islands) as watch:
        if not wait_until(lambda: min(watch.farthest.values()) > SETTLED_STEPS, START_TIMEOUT_S):
            print(f"no start: {watch.farthest} {[one.told() for one in islands]}", flush=True)
            return 1
        samples = strike_for(minutes, islands, watch, tally)
        wrong = stopped_right(islands, settings, folder / "quiet")
    found = trends(samples)
    print(tally.text(), *(trend.text() for trend in found), sep="\n")
    print(f"bytes: {'; '.join(wrong) or 'all right'}", flush=True)
    return len(tally.wrong) + len(wrong) + sum(not trend.flat for trend in found)
