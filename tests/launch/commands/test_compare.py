"""``freqgan compare``: systems trained at equal cost and measured alike, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import ROOT, command_line, refused, run_command

Capsys = pytest.CaptureFixture[str]


def test_a_comparison_stops_goes_on_and_ends_in_a_table(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [
        "compare", "smoke", f"data={small_shards}", "--data", held_out, "--out", out, "--presets", "bands,single",
        "--seeds", 1, "--count", 64, "--budget", 64,
    ]  # fmt: skip
    process = subprocess.Popen(command_line(*arguments), cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
    log = out / "bands-0.log"
    deadline = time.monotonic() + 100
    while not (log.exists() and "checkpoint of step" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75, process.stderr and process.stderr.read()
    assert not (out / "index.html").exists()

    outcome = run_command(capsys, *arguments)
    assert outcome.code == 0, outcome.err
    assert "index.html" in outcome.out
    results = json.loads((out / "results.json").read_text())
    assert [(r["system"], r["seed"]) for r in results] == [("bands", 0), ("single", 0)]
    assert set(results[0]["scores"]["cross_band_frechet"]) == {"value", "floor", "ratio", "chain", "other"}
    assert set(results[1]["scores"]["cross_band_frechet"]) == {"value", "floor", "ratio"}
    assert results[0]["cost"] == pytest.approx(results[1]["cost"], rel=0.2)  # widths of 8 have no finer steps
    table = (out / "results.md").read_text()
    assert "| bands | alpha = 1 |" in table
    assert "| single | learned alpha |" in table
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 13 + 2
    assert "| learned.frechet | learned_holdout.frechet |" in table
    assert table.count("of real images held out from it; guessing has") == 2

    before = (out / "bands-0" / "metrics.jsonl").stat().st_mtime_ns
    assert run_command(capsys, *arguments).code == 0  # nothing is left to do
    assert (out / "bands-0" / "metrics.jsonl").stat().st_mtime_ns == before
    other = refused(run_command(capsys, *arguments, "optimiser.beta2=0.9"))
    assert "holds a comparison of other settings" in other
    assert "was measured against" in refused(run_command(capsys, *arguments, "--data", small_shards))


def test_what_cannot_be_compared(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    base = ("compare", "smoke", f"data={small_shards}", "--data", small_shards)
    assert "no system is called 'double'" in refused(
        run_command(capsys, *base, "--out", tmp_path / "out", "--presets", "bands,double")
    )
    for arguments in (("--data", tmp_path / "nowhere"), (f"data={tmp_path / 'nowhere'}",)):
        assert "nowhere" in refused(run_command(capsys, *base, *arguments, "--out", tmp_path / "out"))
    both = (f"data={tmp_path / 'here'}", "--data", tmp_path / "there", "--out", tmp_path / "out")
    message = refused(run_command(capsys, *base, *both))
    assert all(f"{tmp_path}/{name}" in message for name in ("here", "there"))
    assert not (tmp_path / "out").exists()
    assert "needs a local folder" in refused(run_command(capsys, *base, "--out", "s3://bucket/out"))


def test_a_comparison_that_nothing_could_be_measured_in_trains_nothing(
    capsys: Capsys, small_shards: Path, one_picture: Path, tmp_path: Path
) -> None:
    base = ("compare", "smoke", f"data={small_shards}", "--out", tmp_path / "out")
    assert "at least 64 are needed" in refused(run_command(capsys, *base, "--data", small_shards))
    assert f"{one_picture}: 65 of its images" in refused(run_command(capsys, *base, "--data", one_picture))
    assert "names no system" in refused(run_command(capsys, *base, "--data", small_shards, "--presets", " , "))
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_named_with_its_log(capsys: Capsys, held_out: Path, tmp_path: Path) -> None:
    out, damaged = tmp_path / "out", tmp_path / "damaged.tar"
    damaged.write_bytes(b"no archive" * 200)
    outcome = run_command(
        capsys, "compare", "smoke", f"data={damaged}", "--data", held_out, "--out", out, "--presets",
        "bands", "--seeds", 1,
    )  # fmt: skip
    assert outcome.code == 3, outcome
    assert "bands-0 ended with exit code 2" in outcome.err
    assert str(out / "bands-0.log") in outcome.err
