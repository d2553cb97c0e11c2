"""How flow experts generate, chosen on the command line in place of what the checkpoint has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.run.checkpoints import find_checkpoint
from tests.support.commands import refused, run_command
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings, trained

Capsys = pytest.CaptureFixture[str]
GUIDED = {**FLOWS, "flow": {**FLOWS["flow"], "guide_at": 0.02}, "max_steps": 2}
COMMANDS = ("generate", "edit", "super-resolve", "report", "evaluate")


@pytest.fixture(scope="module")
def flow_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "flows"
    trained(tiny_run_settings(run, small_shards, **GUIDED))
    return run


@pytest.fixture(scope="module")
def gan_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "gans"
    trained(tiny_run_settings(run, small_shards, plan={"bands": ["LL1", "HL1"]}, max_steps=1))
    return run


def command(name: str, run: Path, held_out: Path, out: Path, *options: object) -> list[object]:
    picture = next((run.parents[1]).rglob("edges/000.png"), "missing.png")
    rest: dict[str, list[object]] = {
        "generate": ["--count", 2, "--out", out],
        "edit": ["--count", 2, "--gain", "LL1=1", "--out", out],
        "super-resolve": [picture, "--out", out],
        "report": [],
        "evaluate": ["--data", held_out, "--count", 64, "--no-learned"],
    }
    return [name, run, *rest[name], *options]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_options_do_what_the_settings_of_a_training_would(
    capsys: Capsys, flow_run: Path, small_shards: Path, tmp_path: Path
) -> None:
    generation = {
        "evaluations": 3,
        "solver": "euler",
        "condition_noise": 0.1,
        "guidance": {"default": 1.5},
        "shift": 2.0,
    }
    other = tiny_run_settings(tmp_path / "other", small_shards, **GUIDED, generation=generation)
    assert trained(other)[2] == find_checkpoint(str(flow_run)).digest()  # training does not depend on it
    options = ("--evaluations", 3, "--solver", "euler", "--condition-noise", 0.1, "--guidance", 1.5, "--shift", 2)
    for run, name, chosen in ((flow_run, "plain", ()), (flow_run, "chosen", options), (other.run, "stored", ())):
        outcome = run_command(capsys, "generate", run, "--count", 2, "--out", tmp_path / name, *chosen)
        assert outcome.code == 0, outcome.err
    assert pictures(tmp_path / "chosen") == pictures(tmp_path / "stored") != pictures(tmp_path / "plain")


def test_label_guidance_leads_away_from_what_is_made_without_the_label(
    capsys: Capsys, small_shards: Path, tmp_path: Path
) -> None:
    quick = {**FLOWS["flow"], "optimiser": {"learning_rate": 0.1, "warmup_images": 0}}
    labelled = {**FLOWS, "flow": quick, "classes": 2, "max_steps": 4}
    run = tiny_run_settings(tmp_path / "run", small_shards, **labelled)
    other = tiny_run_settings(tmp_path / "other", small_shards, **labelled, generation={"label_guidance": 100.0})
    trained(run)
    trained(other)
    for folder, name, chosen in ((run, "plain", ()), (run, "chosen", ("--label-guidance", 100)), (other, "stored", ())):
        outcome = run_command(capsys, "generate", folder.run, "--count", 2, "--out", tmp_path / name, *chosen)
        assert outcome.code == 0, outcome.err
    assert pictures(tmp_path / "chosen") == pictures(tmp_path / "stored") != pictures(tmp_path / "plain")


def test_a_resume_may_have_other_ways_to_generate(small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, **FLOWS | {"max_steps": 1})
    trained(settings)
    generation = settings.generation.model_copy(update={"evaluations": 4})
    result, events, _ = trained(settings.model_copy(update={"generation": generation, "max_steps": 2}))
    assert (events.first_step, result.step) == (1, 2)
    assert find_checkpoint(settings.run).settings.generation.evaluations == 4


@pytest.mark.usefixtures("brief_critic", "brief_likelihood")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_makes_pictures_takes_them(
    name: str, capsys: Capsys, flow_run: Path, held_out: Path, tmp_path: Path
) -> None:
    outcome = run_command(capsys, *command(name, flow_run, held_out, tmp_path / "out", "--evaluations", 2))
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_model_of_gans_has_no_use_for_them(
    name: str, capsys: Capsys, gan_run: Path, held_out: Path, tmp_path: Path
) -> None:
    outcome = run_command(
        capsys, *command(name, gan_run, held_out, tmp_path / "out", "--evaluations", 4, "--solver", "euler")
    )
    assert "--evaluations, --solver: the model has no flow experts" in refused(outcome)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluations", 5], "--evaluations 5: it is odd, and every step of heun takes two; give an even number"),
        (["--solver", "eulr"], "--solver eulr: no solver is called so (did you mean euler, heun?)"),
        (["--evaluations", 0], "evaluations"),
        (["--condition-noise", -1], "condition-noise"),
        (["--guidance", "nan"], "no finite number"),
        (["--shift", 0], "0.0 is not above 0"),
        (["--label-guidance", -1], "label-guidance"),
        (["--label-guidance", 1], "--label-guidance 1: the model was shown the targets of all its images, or has none"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[object], message: str, capsys: Capsys, flow_run: Path, tmp_path: Path
) -> None:
    assert message in refused(run_command(capsys, *command("generate", flow_run, tmp_path, tmp_path / "out", *options)))


def test_a_file_of_noises_holds_how_its_images_are_generated(capsys: Capsys, flow_run: Path, tmp_path: Path) -> None:
    options = ("--noises", tmp_path / "none", "--out", tmp_path, "--evaluations", 4)
    message = refused(run_command(capsys, "generate", flow_run, *options))
    assert "leave out --evaluations, --solver, --condition-noise, --guidance, --shift and --label-guidance" in message


def test_guidance_needs_guides(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(tiny_run_settings(run, small_shards, **FLOWS | {"max_steps": 1}))
    message = refused(run_command(capsys, "generate", run, "--count", 1, "--out", tmp_path, "--guidance", 1))
    assert "have no guides to lead away from" in message
    assert "flow.guide_at=0.2" in message
