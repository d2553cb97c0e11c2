"""Every command on a run of the jointly trained system: it does its work, or says why it cannot and exits with 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cluster.evaluation.evaluate import parts_of
from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.generation.synthesiser import Synthesiser
from launch.cli import main
from launch.console.plan_table import plan_rows
from launch.pages.curves import judged_parts, lambda_curve, loss_curves
from launch.run_folder.metrics import blend_share, parse_metrics
from tests.support.commands import refused, run_command

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, in two parts."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    for steps in (3, 6):
        with pytest.raises(SystemExit) as leaving:
            main(["train", "smoke", "system=fusion", f"data={small_shards}", f"run={folder}", f"max_steps={steps}"])
        assert leaving.value.code == 0
    return folder


def test_train_resumes_and_says_lambda(capsys: Capsys, small_shards: Path, tmp_path: Path, run: Path) -> None:
    arguments = ("train", "smoke", "system=fusion", f"data={small_shards}", f"run={tmp_path / 'whole'}")
    whole = run_command(capsys, *arguments)
    assert whole.code == 0
    assert re.search(r"step 6/6, .*, lambda 0\.\d{3} \| fusion", whole.err + whole.out)
    digests = {run_command(capsys, "digest", folder).out for folder in (run, tmp_path / "whole")}
    assert len(digests) == 1
    assert "step 6 sha256" in digests.pop()


def test_status_generate_and_report(capsys: Capsys, tmp_path: Path, run: Path) -> None:
    assert "6 of 6" in run_command(capsys, "status", run).out
    assert run_command(capsys, "generate", run, "--count", 3, "--out", tmp_path).code == 0
    assert len(list(tmp_path.glob("0000?.png"))) == 3
    for part in ("chain", "companion"):
        assert run_command(capsys, "generate", run, "--count", 1, "--part", part, "--out", tmp_path / part).code == 0
    pictures = {(tmp_path / name / "00000.png").read_bytes() for name in (".", "chain", "companion")}
    assert len(pictures) == 3
    page = (run / "report.html").read_text()
    assert "Three generators trained as one" in page
    assert "<dt>lambda</dt><dd>0.0" in page
    names = {path.stem for path in (run / "report").glob("*.png")}
    assert names >= {"curves-lambda", "curves-losses", "part-chain", "part-other", "band-LL1-generated"}
    assert "curves-alpha" not in names


def test_curves_show_lambda_and_every_discriminator(run: Path) -> None:
    lines = list(parse_metrics((run / "metrics.jsonl").read_bytes().splitlines(keepends=True)))
    shares = [blend_share(line.stages) for line in lines]
    assert len(shares) == 6
    assert shares == [line.stages["fusion"]["lambda"] for line in lines]
    assert lambda_curve(lines).width > 0
    assert [part.title for part in judged_parts(lines)] == ["image", "low band", "high bands"]
    keys = lines[0].stages["fusion"].keys()
    assert all(keys >= {f"loss_d{part.suffix}", f"loss_g{part.suffix}"} for part in judged_parts(lines))
    assert loss_curves(lines, relativistic=False) is not None


def test_the_parts_of_a_model_are_its_image_its_bands_and_g_o(run: Path) -> None:
    checkpoint = find_checkpoint(str(run))
    assert parts_of(checkpoint.settings) == ("image", "chain", "other")
    synthesiser: Synthesiser = synthesiser_of(checkpoint)
    generated, share = synthesiser.sample(0, 2), synthesiser.share
    assert share is not None
    assert 0 < share < 0.1
    blend = (1 - share) * generated.conventional + share * generated.frequency
    assert (generated.images - blend).abs().max() < 1e-5
    assert set(map(str, generated.sub_images)) == {"LL1", "HL1", "LH1", "HH1"}


def test_the_plan_is_one_stage(capsys: Capsys, tmp_path: Path, small_shards: Path, run: Path) -> None:
    settings = find_checkpoint(str(run)).settings
    (row,) = plan_rows(settings)
    assert (row.name, row.shape) == ("fusion", "3x16x16")
    arguments = ("plan", "smoke", "system=fusion", "--nodes", "2xT4", "--out", tmp_path)
    assert run_command(capsys, *arguments).code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {part["stage"] for part in plan["replicas"]} == {"fusion"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("super-resolve", "{run}", "{image}", "--out", "{out}"), "the model has no GAN for the bands"),
        (("edit", "{run}", "--resample", "HL1", "--out", "{out}"), "no band is called 'HL1'"),
        (("encode", "{run}", "{image}", "--out", "{out}"), "what system=fusion trains of this model is a GAN"),
        (("distil", "{run}", "run={out}"), "flow experts alone can be distilled"),
        (("tune", "{run}", "--data", "{data}"), "the run has no flow experts"),
        (("generate", "{run}", "--count", "2", "--solver", "euler", "--out", "{out}"), "--solver"),
        (
            ("train", "smoke", "system=fusion", "run={run}", "data={data}", "fusion.split=3"),
            "fusion.split is None there",
        ),
        (("train", "smoke", "system=fusion", "run={out}", "data={data}", "experts=flow"), "experts: default=flow"),
    ],
)
def test_what_needs_experts_of_bands_is_refused(
    capsys: Capsys, arguments: tuple[str, ...], message: str, run: Path, small_shards: Path, tmp_path: Path
) -> None:
    image = run / "report" / "images-generated.png"
    places = {"run": run, "data": small_shards, "out": tmp_path / "out", "image": image}
    assert message in refused(run_command(capsys, *(text.format(**places) for text in arguments)))
