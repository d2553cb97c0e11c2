"""Names as people give them: brackets, colons and angle brackets are shown as they are, and what is no text is refused.

Every command that prints a name is driven with names that rich, typer and HTML would take for something else.
"""

from __future__ import annotations

import html
import io
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from cluster.execution.failure_policy import Recovery
from launch.console.progress import ProgressReporter
from tests.support.commands import Outcome, refused, run_command, run_process
from tests.support.runs import tiny_run_settings

Capsys = pytest.CaptureFixture[str]
NAMES = ["rr [v2]/[red]x/[bold]/a:cat:b/x [link=y]", "rr [/b]/ends\\/<b>&amp;/$x^2$/%s 0"]  # folders in folders


@pytest.fixture(scope="module")
def run_folder(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as leaving:
        main(["train", "smoke", f"data={small_shards}", f"run={folder}", "max_steps=2", "checkpoint_every=2"])
    assert leaving.value.code == 0
    return folder


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest, run_folder: Path, tmp_path: Path) -> Path:
    """A run below a folder whose name is no plain word."""
    return Path(shutil.copytree(run_folder, tmp_path / request.param))


def joined(outcome: Outcome) -> str:
    """What was printed, without the ends of lines that tables make of long names."""
    assert "Traceback" not in outcome.err
    assert "unexpected" not in outcome.err
    return "".join((outcome.out + outcome.err).replace("│", " ").split())


def without_blanks(path: object) -> str:
    return "".join(str(path).split())


def test_every_command_shows_names_as_they_are(capsys: Capsys, named: Path) -> None:
    missing = f"{named}/no [/i] here"
    ok: tuple[tuple[object, ...], ...] = (("status", named), ("storage", "check", named),
          ("generate", named, "--count", 1, "--out", named / "out"),
          ("edit", named, "--gain", "HH1=2", "--count", 1, "--out", named / "out"))  # fmt: skip
    for arguments in ok:
        outcome = run_command(capsys, *arguments)
        assert outcome.code == 0, outcome
        assert without_blanks(named) in joined(outcome), arguments
    wrong: tuple[tuple[object, ...], ...] = (
        ("status", missing), ("digest", missing), ("report", missing),
        ("generate", missing, "--count", 1, "--out", "x"), ("evaluate", missing, "--data", "x"),
        ("shards", "info", missing), ("shards", "verify", missing),
        ("shards", "index", missing), ("shards", "pack", missing, "x"), ("models", "list", missing),
        ("retrain", missing), ("decompose", missing, "--out", "x"), ("super-resolve", named, missing, "--out", named),
        ("train", f"{missing}.yaml"), ("train", "smoke", f"data={missing}", f"run={named / 'new'}"),
    )  # fmt: skip
    for command in wrong:
        assert without_blanks(missing) in "".join(refused(run_command(capsys, *command)).split()), command


@pytest.mark.parametrize("name", NAMES)
def test_a_training_shows_the_name_of_its_run(capsys: Capsys, small_shards: Path, tmp_path: Path, name: str) -> None:
    reporter_said, settings = io.StringIO(), tiny_run_settings(tmp_path / name, small_shards)
    with ProgressReporter(settings, Console(file=reporter_said, width=400, force_terminal=False)) as reporter:
        reporter.say(f"training {settings.run}")
        reporter.warn(f"resumes {settings.run}")
        reporter.on_recovery(Recovery(1, (name,), name, "roll back", 0, 0, 0.0))
    said = reporter_said.getvalue()
    assert f"training {settings.run}\n" in said
    assert f"note: resumes {settings.run}\n" in said
    assert f"note: {name}: all stages begin again" in said


def test_a_run_is_trained_and_reported_under_an_odd_name(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>[/b] & {{ x }} $y$"
    outcome = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}", "max_steps=1")
    assert outcome.code == 0, outcome.err
    assert f"training {run}: step 0" in outcome.err
    assert f"report: {run}/report.html" in outcome.err
    page = (run / "report.html").read_text()
    assert html.escape(str(run)) in page
    assert "<b>[/b]" not in page
    again = run_command(capsys, "train", run / "config.yaml")
    assert again.code == 0, again.err
    assert "is done already" in again.err


@pytest.mark.parametrize("word", ["[/b]", "[red]x", "a:cat:"])
def test_wrong_usage_shows_words_as_they_are(capsys: Capsys, word: str, tmp_path: Path) -> None:
    for arguments in ((word,), ("digest", tmp_path, word), ("models", word), ("status", "x", f"--{word}")):
        outcome = run_command(capsys, *arguments)
        assert outcome.code == 2
        assert word in outcome.err, outcome.err
    assert word in refused(run_command(capsys, "train", "smoke", f"{word}=1"))
    assert word in refused(run_command(capsys, "plan", "smoke", "--estimate", "--nodes", word))


def test_the_help_shows_its_defaults(capsys: Capsys) -> None:
    """In square brackets, which are no markup."""
    for command, default in ((["models", "show"], "the one in use"), (["compare"], "as set"), (["plan"], "this")):
        said = " ".join(run_command(capsys, *command, "--help").out.replace("│", " ").split())  # it may be wrapped
        assert f"[default: ({default}" in said


# -- what is no text -------------------------------------------------------------------------------

NO_TEXT = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "smoke", f"run={NO_TEXT}"], ["train", f"{NO_TEXT}.yaml"], ["train", "smoke", f"{NO_TEXT}=1"],
        ["generate", "run", "--count", "1", "--out", NO_TEXT], ["generate", NO_TEXT, "--count", "1", "--out", "x"],
        ["evaluate", "run", "--data", "x", "--json", NO_TEXT], ["shards", "pack", "x", NO_TEXT], ["status", NO_TEXT],
        ["shards", "info", "x", "--grid", NO_TEXT], ["compare", "smoke", "--data", "x", "--out", NO_TEXT],
        ["retrain", NO_TEXT], ["models", "list", NO_TEXT], ["super-resolve", "run", NO_TEXT, "--out", "x"],
        ["plan", "smoke", "--out", NO_TEXT], ["submit", "smoke", "--address", NO_TEXT], [NO_TEXT],
    ],
)  # fmt: skip
def test_an_argument_that_is_no_utf_8_is_refused_before_anything_begins(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(run_command(capsys, *arguments))
    assert r"caf\udce9" in message
    assert "is not UTF-8" in message
    assert list(tmp_path.iterdir()) == []


def test_so_it_is_for_a_process(tmp_path: Path, small_shards: Path) -> None:
    message = refused(run_process("train", "smoke", f"data={small_shards}", f"run={tmp_path}/{NO_TEXT}"))
    assert "is not UTF-8" in message
    assert os.listdir(os.fsencode(tmp_path)) == []


def test_a_folder_to_work_in_that_is_no_text_or_gone_is_told(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / NO_TEXT
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert "the current folder" in refused(run_command(capsys, "train", "smoke", "run=run"))
    assert list(odd.iterdir()) == []
    odd.rmdir()
    assert "is not there any more" in refused(run_command(capsys, "status", "run"))


def test_a_variable_that_is_no_utf_8_is_not_handed_to_a_job(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", NO_TEXT)
    submit = ("submit", "smoke", "run=/a", "data=/b", "--address", "http://127.0.0.1:9", "--env", "ODD")
    assert "--env ODD: its value is not UTF-8" in refused(run_command(capsys, *submit))


def test_names_that_a_terminal_cannot_show_end_no_command(run_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "café ☃")
    outcome = run_process("generate", copy, "--count", 1, "--out", tmp_path / "out-é☃", PYTHONIOENCODING="ascii")
    assert outcome.code == 0, outcome
    assert r"out-\xe9\u2603" in outcome.out


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "smoke", f"run={LONG}"], ["train", LONG], ["train", "smoke", f"data={LONG}"], ["status", LONG],
        ["generate", LONG, "--count", "1", "--out", "x"], ["plan", "smoke", "--estimate", "--out", LONG],
        ["shards", "pack", LONG, "x"], ["shards", "info", LONG], ["models", "list", LONG], ["retrain", LONG],
        ["decompose", LONG, "--out", "x"], ["compare", "smoke", "--data", LONG, "--out", "x"],
        ["generate", "{run}", "--count", "1", "--out", LONG], ["edit", "{run}", "--gain", "HH1=2", "--out", LONG],
        ["train", "smoke", "run="], ["status", ""], ["shards", "info", ""],
        ["generate", "", "--count", "1", "--out", ""], ["evaluate", "{run}", "--data", "x", "--json", ""],
        ["plan", "smoke", "--nodes", ""], ["plan", "smoke", "--estimate", "--out", ""],
        ["plan", "smoke", "--estimate", "--simulate", "", "--out", "x"],
        ["plan", "smoke", "--estimate", "--link-gbit", "inf"], ["plan", "smoke", "--estimate", "--link-gbit", "nan"],
        ["plan", "smoke", "--estimate", "--failures", "1e400"], ["compare", "smoke", "--data", "x", "--out", ""],
        ["compare", "smoke", "--data", "x", "--out", "y", "--seeds", "9" * 26],
        ["evaluate", "x", "--data", "x", "--size", "9" * 26],
    ],
)  # fmt: skip
def test_names_and_numbers_that_cannot_be_are_wrong_input(
    capsys: Capsys, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_command(capsys, *(argument.replace("{run}", str(run_folder)) for argument in arguments))
    assert outcome.code == 2, outcome
    assert "unexpected" not in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []
