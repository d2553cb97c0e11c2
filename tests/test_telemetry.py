"""What a run tells Prometheus: read from the port that Ray's agent serves, as Prometheus reads it."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

from cluster.telemetry import RUN_GAUGES, STAGE_GAUGES
from tests.chaos import killing
from tests.runs import tiny_run_settings, trained

PATIENCE_S = 60.0


def served() -> str:
    """The text of Ray's agent on this machine."""
    import ray

    port = next(node["MetricsExportPort"] for node in ray.nodes() if node["Alive"])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def series(text: str, run: str) -> dict[tuple[str, str], float]:
    """(name, stage) -> value, of the series of ``run``."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"(?:ray_)?(freqgan_\w+)\{(.*)\} (\S+)$", line)
        if match and f'run="{run}"' in match[2]:
            stage = re.search(r'stage="([^"]*)"', match[2])
            assert stage is not None
            found[match[1], stage[1]] = float(match[3])
    return found


def test_prometheus_sees_every_stage_and_the_run(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    run = str(tmp_path / "run")
    plan = {"bands": ["LL1", "HL1"]}
    settings = tiny_run_settings(run, small_shards, executor="ray", plan=plan, max_steps=60, images=2_000, window=2)
    with killing({3: ["HL1"]}):
        trained(settings)
    end_s = time.monotonic() + PATIENCE_S
    wanted = {(name, stage) for name, _ in STAGE_GAUGES.values() for stage in ("LL1", "HL1", "image")}
    wanted -= {("freqgan_alpha", "LL1"), ("freqgan_alpha", "HL1")}
    wanted |= {(name, "coordinator") for name, _ in RUN_GAUGES.values()} | {("freqgan_recoveries_total", "HL1")}
    wanted |= {("freqgan_exchanged_bytes_total", stage) for stage in ("LL1", "HL1", "image")}
    while not wanted <= (found := series(served(), run)).keys() and time.monotonic() < end_s:
        time.sleep(1)
    assert wanted <= found.keys()
    assert found["freqgan_recoveries_total", "HL1"] == 1
    assert found["freqgan_step_seconds", "LL1"] > 0
    assert found["freqgan_exchanged_bytes_total", "image"] > 0
