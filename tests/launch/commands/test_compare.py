"""``freqgan compare``: systems trained at equal cost or time and measured alike, stopped and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from freqgan.errors import InputError
from launch.commands.compare import comparison_of, entrants_of
from launch.commands.entrants import Entrant, is_measured, next_command
from launch.settings.load import dump_settings
from tests.support.commands import ROOT, command_line, refused, run_command
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings

Capsys = pytest.CaptureFixture[str]


def test_a_comparison_stops_goes_on_and_ends_in_a_table(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path
) -> None:
    out, minutes = tmp_path / "out", 0.01
    arguments = [
        "compare", "smoke", f"data={small_shards}", "executor=inline", "--data", held_out, "--out", out, "--seeds", 1,
        "--presets", "bands,single", "--count", 64, "--minutes", minutes, "--no-learned",
    ]  # fmt: skip
    process = subprocess.Popen(command_line(*arguments), cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True)
    log = out / "bands-0.log"
    deadline = time.monotonic() + 100
    while not (log.exists() and "checkpoint of step" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert "times steps of single" in told
    assert not (out / "index.html").exists()
    speeds = costs(out)

    outcome = run_command(capsys, *arguments)
    assert outcome.code == 0, outcome.err
    assert "times steps" not in outcome.err  # they would come out otherwise
    assert "index.html" in outcome.out
    assert costs(out) == speeds
    results = json.loads((out / "results.json").read_text())
    assert [(r["system"], r["seed"]) for r in results] == [("bands", 0), ("single", 0)]
    assert set(results[0]["scores"]["cross_band_frechet"]) == {"value", "floor", "ratio", "chain", "other"}
    assert set(results[1]["scores"]["cross_band_frechet"]) == {"value", "floor", "ratio"}
    assert results[0]["cost"] == pytest.approx(results[1]["cost"], rel=0.2)  # widths of 8 have no finer steps
    for result in results:
        system, images = result["system"], result["images"]
        assert 0 <= speeds[system]["images_per_s"] * 60 * minutes - images < 8  # a batch has 8
        assert f" images/s, {images:,} images in 0.01 minutes" in told
        assert result["multiply_accumulates"] == images * result["cost"]
        lines = [json.loads(line) for line in (out / f"{system}-0" / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["images"] == images
        spent = [stage["seconds"] for line in lines for stage in line["stages"].values()]
        assert result["minutes"] == pytest.approx(sum(spent) / 60)
    table = (out / "results.md").read_text()
    assert "trains in 0.01 minutes of one process" in table
    assert "| bands | alpha = 1 |" in table
    assert "| single | learned alpha |" in table
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 9 + 2

    before = (out / "bands-0" / "metrics.jsonl").stat().st_mtime_ns
    assert run_command(capsys, *arguments).code == 0  # nothing is left to do
    assert (out / "bands-0" / "metrics.jsonl").stat().st_mtime_ns == before
    other = refused(run_command(capsys, *arguments, "optimiser.beta2=0.9"))
    assert "holds a comparison of other settings" in other
    assert "at 0.01 minutes, and this is one at 1 minutes" in refused(run_command(capsys, *arguments, "--minutes", 1))
    assert "was measured against" in refused(run_command(capsys, *arguments, "--data", small_shards))


def costs(out: Path) -> dict[str, dict[str, float]]:
    systems: dict[str, dict[str, float]] = json.loads((out / "costs.json").read_text())["systems"]
    return systems


@pytest.mark.usefixtures("brief_critic", "brief_likelihood")
def test_flow_experts_are_tuned_and_have_curves(capsys: Capsys, held_out: Path, tmp_path: Path) -> None:
    """The commands of a run one after the other in this process; the comparison finds nothing left to do."""
    out, file = tmp_path / "out", tmp_path / "flows.yaml"
    out.mkdir()
    settings = tiny_run_settings("", shutil.copytree(held_out, tmp_path / "data"), **FLOWS | {"max_steps": 2})
    file.write_text(dump_settings(settings))
    comparison = comparison_of(
        settings, systems="flow", seeds=1, budget=None, minutes=None, out=str(out), held_out=str(held_out), count=64,
        jobs=1, learned=True, most_evaluations=2, curves=True,
    )  # fmt: skip
    (entrant,) = entrants_of(comparison, lambda _: None)
    commands: list[list[str]] = []
    while not is_measured(comparison, entrant):
        commands.append(next_command(comparison, entrant))
        outcome = run_command(capsys, *commands[-1])
        assert outcome.code == 0, (commands[-1], outcome.err)
    assert [command[0] for command in commands] == ["train", "tune", "evaluate", "evaluate"]

    options = ("--data", held_out, "--presets", "flow", "--seeds", 1, "--count", 64)
    outcome = run_command(capsys, "compare", file, *options, "--out", out, "--tune", "--evaluations", 2, "--curves")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads((out / "results.json").read_text())
    assert "likelihood" in result["scores"]
    chosen = json.loads((out / "flow-0" / "sampler-2.json").read_text())["options"]
    assert chosen.keys() == {"evaluations", "solver", "shift", "condition_noise"}
    assert chosen.items() <= result["generation"].items()
    assert all(str(value) in commands[-1] for value in chosen.values())
    table = (out / "results.md").read_text()
    assert "| learned.frechet | learned_holdout.frechet |" in table
    assert table.count("of real images held out from it; guessing has") == 2
    assert f"| {chosen['solver']}, 2 passes, shift {chosen['shift']:g}, " in table
    curves = json.loads((out / "curves.json").read_text())["flow-0"]
    for metric in ("learned.frechet", "learned_holdout.frechet"):
        assert list(curves[metric]["evaluations"]) == ["1", "2", "4", "8", "16", "32"]
        assert list(curves[metric]["condition_noise"]) == ["0", "0.05", "0.1", "0.2"]
    tuned = curves["learned.frechet"]["condition_noise"][f"{chosen['condition_noise']:g}"]
    assert tuned == pytest.approx(result["scores"]["learned.frechet"]["value"])  # the same images, by another command
    assert (out / "index.html").read_text().count("data:image/png") == 13 + 1 + 2


def test_a_system_with_settings_of_its_own_trains_at_equal_cost_on_the_same_images(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    changes = FLOWS | {"batch": 4, "max_steps": 9, "flow": {"coarse_network": {"width": 16, "coarse_width": 16}}}
    own.write_text(dump_settings(tiny_run_settings("", tmp_path / "elsewhere", **changes)))
    base = tiny_run_settings("", small_shards, max_steps=2)

    def compared(systems: str) -> dict[str, Entrant]:
        comparison = comparison_of(
            base, systems=systems, seeds=1, budget=30, minutes=None, out=str(tmp_path), held_out=str(held_out),
            count=64, jobs=1, learned=True, most_evaluations=None, curves=False,
        )  # fmt: skip
        return {entrant.name: entrant for entrant in entrants_of(comparison, lambda _: None)}

    entrants = compared(f"bands,narrow={own}")
    narrow, bands = entrants["narrow-0"], entrants["bands-0"]
    assert (narrow.settings.data, narrow.settings.images, narrow.settings.batch) == (str(small_shards), 28, 4)
    assert narrow.settings.band_plan().gans[0].kind == "flow"
    assert narrow.settings.max_steps == 2  # of the settings that are compared; its own file has another number
    assert narrow.cost == pytest.approx(bands.cost, rel=0.3)  # widths of 4 have no finer steps
    assert compared(f"narrow={own}") == {"narrow-0": narrow}

    own.write_text(own.read_text().replace("batch: 4", "batch: 2"))
    refusal = f"{tmp_path} holds narrow with other settings"
    arguments = [
        "compare",
        "smoke",
        f"data={small_shards}",
        "executor=inline",
        "--data",
        held_out,
        "--out",
        tmp_path / "out",
        "--presets",
    ]
    with pytest.raises(InputError, match=refusal):
        compared(f"narrow={own}")
    for systems, message in (
        ("bands,large=clothing", "image_size is 64 there and 16 in the settings that are compared"),
        (f"bands={own}", "needs a name of letters, digits and hyphens that is none of bands, literal"),
        ("my own=smoke", "needs a name of letters, digits and hyphens"),
        ("own=nowhere", "no preset or settings file is called 'nowhere'"),
    ):
        assert message in refused(run_command(capsys, *arguments, systems)), systems
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    base = ("compare", "smoke", f"data={small_shards}", "executor=inline", "--data", small_shards)
    assert "no system is called 'double'" in refused(
        run_command(capsys, *base, "--out", tmp_path / "out", "--presets", "bands,double")
    )
    for arguments in (("--data", tmp_path / "nowhere"), (f"data={tmp_path / 'nowhere'}",)):
        assert "nowhere" in refused(run_command(capsys, *base, *arguments, "--out", tmp_path / "out"))
    both = (f"data={tmp_path / 'here'}", "--data", tmp_path / "there", "--out", tmp_path / "out")
    both_named = refused(run_command(capsys, *base, *both))
    assert all(f"{tmp_path}/{name}" in both_named for name in ("here", "there"))
    assert not (tmp_path / "out").exists()
    for options, message in (
        (("--minutes", 1, "--budget", 64), "--minutes 1 and --budget 64 both say how many images a run sees"),
        (("--minutes", 1, "max_steps=4"), "--minutes 1 and max_steps=4 both say how long a run trains"),
        (("--minutes", 0), "0.0 is not above 0"),
        (("--tune",), "--tune: no system of bands,literal,joint-hf,single has flow experts"),
        (("--curves", "--presets", "flow", "--no-learned"), "--tune and --curves go by learned features"),
    ):
        assert message in refused(run_command(capsys, *base, "--out", tmp_path / "out", *options))
    assert "needs a local folder" in refused(run_command(capsys, *base, "--out", "s3://bucket/out"))


def test_a_comparison_that_nothing_could_be_measured_in_trains_nothing(
    capsys: Capsys, small_shards: Path, held_out: Path, one_picture: Path, tmp_path: Path
) -> None:
    base = ("compare", "smoke", f"data={small_shards}", "--out", tmp_path / "out")
    assert "at least 64 are needed" in refused(run_command(capsys, *base, "--data", small_shards))
    assert f"{one_picture}: 65 of its images" in refused(run_command(capsys, *base, "--data", one_picture))
    tuned = ("--data", held_out, "--presets", "flow", "--tune")  # 96 images to train on
    assert f"real ones of {small_shards}: at least 64 are needed" in refused(run_command(capsys, *base, *tuned))
    assert "names no system" in refused(run_command(capsys, *base, "--data", small_shards, "--presets", " , "))
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_named_with_its_log(capsys: Capsys, held_out: Path, tmp_path: Path) -> None:
    out, damaged = tmp_path / "out", tmp_path / "damaged.tar"
    damaged.write_bytes(b"no archive" * 200)
    outcome = run_command(
        capsys, "compare", "smoke", f"data={damaged}", "--data", held_out, "--out", out, "--presets",
        "single", "--seeds", 1,
    )  # fmt: skip
    assert outcome.code == 3, outcome
    assert "single-0 ended with exit code 2" in outcome.err
    assert str(out / "single-0.log") in outcome.err
