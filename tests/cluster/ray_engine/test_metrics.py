"""What a run tells Prometheus: read from the port that Ray's agent serves, as Prometheus reads it."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from cluster.execution.callbacks import StepRecord
from cluster.ray_engine.metrics import RUN_GAUGES, STAGE_GAUGES
from cluster.training.train import train
from tests.campaigns.chaos import killing
from tests.support.mixtures import FLOWS
from tests.support.runs import Events, tiny_run_settings

PATIENCE_S, PAUSE_S = 60.0, 0.1


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


class SeenError(Exception):
    """Everything that was waited for has been served."""


class Scraping(Events):
    """Looks every second, as training goes on, until all of ``wanted`` is served, and ends the training then.

    A process tells Ray's agent every few seconds, and not once more at its end. Steps wait for each other, so that the
    processor is not busy with steps that nobody needs.
    """

    def __init__(self, run: str, wanted: set[tuple[str, str]]) -> None:
        super().__init__()
        self.run, self.wanted, self.found = run, wanted, dict[tuple[str, str], float]()
        self.begun_s = self.looked_s = time.monotonic()

    def on_step(self, record: StepRecord) -> None:
        time.sleep(PAUSE_S)
        now_s = time.monotonic()
        if now_s - self.looked_s < 1:
            return
        self.looked_s, self.found = now_s, series(served(), self.run)
        if self.wanted <= self.found.keys() or now_s - self.begun_s > PATIENCE_S:
            raise SeenError


def test_prometheus_sees_every_stage_and_the_run(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    run = str(tmp_path / "run")
    plan = {"bands": ["LL1", "HL1"]}
    settings = tiny_run_settings(
        run, small_shards, executor="ray", plan=plan, max_steps=10_000, images=80_000, window=2
    )
    wanted = {(name, stage) for name, _ in STAGE_GAUGES.values() for stage in ("LL1", "HL1", "image")}
    wanted -= {("freqgan_alpha", "LL1"), ("freqgan_alpha", "HL1")}
    wanted -= {(name, stage) for name in ("freqgan_loss", "freqgan_lambda") for stage in ("LL1", "HL1", "image")}
    wanted |= {(name, "coordinator") for name, _ in RUN_GAUGES.values()} | {("freqgan_recoveries_total", "HL1")}
    bytes_of = ("freqgan_exchanged_bytes_total", "freqgan_batch_bytes_total")
    wanted |= {(name, stage) for name in bytes_of for stage in ("LL1", "HL1", "image")}
    scraping = Scraping(run, wanted)
    with killing({3: ["HL1"]}), pytest.raises(SeenError):
        train(settings, scraping)
    found = scraping.found
    assert wanted <= found.keys()
    assert found["freqgan_recoveries_total", "HL1"] == 1
    assert found["freqgan_step_seconds", "LL1"] > 0
    assert found["freqgan_exchanged_bytes_total", "image"] > 0


@pytest.mark.long
def test_flow_experts_take_batches_and_nothing_else(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    """The test above sees that bytes between stages are counted; here a stage has none, and so no such series."""
    run, stages = str(tmp_path / "run"), ("LL1", "HL-LH-HH1")
    settings = tiny_run_settings(
        run, small_shards, **FLOWS, executor="ray", max_failures=0, max_steps=10_000, images=80_000, window=2
    )
    told = ("freqgan_loss", "freqgan_steps_done", "freqgan_batch_bytes_total")
    scraping = Scraping(run, {(name, stage) for name in told for stage in stages})
    with pytest.raises(SeenError):
        train(settings, scraping)
    assert scraping.wanted <= scraping.found.keys()
    batch_bytes = 8 * 16 * 16 * 3
    for stage in stages:
        assert scraping.found["freqgan_batch_bytes_total", stage] % batch_bytes == 0
        assert scraping.found["freqgan_loss", stage] > 0
    assert [key for key in scraping.found if key[0] == "freqgan_exchanged_bytes_total"] == []
