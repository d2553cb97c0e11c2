"""The commands from end to end: pack, train, stop, resume, generate, digest, dry run; on a disk and in a bucket."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.labels import class_of
from cluster.storage.folder import open_folder
from freqgan import __version__
from freqgan.errors import InputError
from launch.settings.load import load_settings, preset_names
from tests.support.commands import ROOT, command_line, refused, run_command
from tests.support.s3_server import BUCKET

Capsys = pytest.CaptureFixture[str]
DIGEST = re.compile(r"step (\d+) sha256 ([0-9a-f]{64})")


def train(capsys: Capsys, *overrides: object) -> str:
    """Trains the smoke preset to its end; what it said."""
    outcome = run_command(capsys, "train", "smoke", *overrides)
    assert outcome.code == 0, outcome.err
    return outcome.err


def digest(capsys: Capsys, run: object) -> tuple[int, str]:
    outcome = run_command(capsys, "digest", run)
    assert outcome.code == 0, outcome.err
    match = DIGEST.fullmatch(outcome.out.splitlines()[-1])
    assert match is not None, outcome.out
    return int(match[1]), match[2]


@pytest.fixture(scope="module")
def run_folder(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run of a model with two classes."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as leaving:
        main(["train", "smoke", f"data={small_shards}", f"run={folder}", "classes=2"])
    assert leaving.value.code == 0
    return folder


# -- start-up --------------------------------------------------------------------------------------


def test_help_and_version_import_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from launch.cli import main\n"
        "try:\n    main([sys.argv[1]])\n"
        "except SystemExit as leaving:\n    code = leaving.code\n"
        "print('heavy', sorted({'torch', 'ray', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)), code)"
    )
    for option, expected in (("--help", "train"), ("--version", f"freqgan {__version__}")):
        done = subprocess.run(
            [sys.executable, "-c", program, option], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert expected in done.stdout
        assert done.stdout.splitlines()[-1] == "heavy [] 0"


@pytest.mark.parametrize(
    ("line", "fault", "command"),
    [
        ("trian", "no such command 'trian' (did you mean train, retrain?)", "freqgan"),
        ("shards pakc", "no such command 'pakc' (did you mean pack?)", "freqgan shards"),
        ("train", "missing argument 'SETTINGS'", "freqgan train"),
        ("train smoke --dryrun", "no such option: --dryrun (did you mean --dry-run?)", "freqgan train"),
        ("digest . more", "got unexpected extra argument(s) (more)", "freqgan digest"),
        ("generate . --count 0 --out x", "--count 0: must be greater than or equal to 1", "freqgan generate"),
        ("generate . --count many --out x", "--count many: must be a valid integer", "freqgan generate"),
        ("models show . none", "NUMBER none: must be a valid integer", "freqgan models show"),
        (
            "shards pack a b --shard-samples 0",
            "--shard-samples 0: must be greater than or equal to 1",
            "freqgan shards pack",
        ),
        ("plan smoke --link-gbit inf", "--link-gbit: inf is no finite number", "freqgan plan"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(capsys: Capsys, line: str, fault: str, command: str) -> None:
    outcome = run_command(capsys, *line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {fault}; `{command} --help` says what there is\n"


@pytest.mark.parametrize("arguments", [[], ["shards"]])
def test_a_group_of_commands_alone_is_answered_by_its_help(capsys: Capsys, arguments: list[str]) -> None:
    outcome = run_command(capsys, *arguments)
    assert outcome.code == 2
    assert "Usage: freqgan" in outcome.err + outcome.out
    assert "error" not in outcome.err


def test_the_help_names_the_presets(capsys: Capsys) -> None:
    assert ", ".join(preset_names()) in " ".join(run_command(capsys, "train", "--help").out.replace("│", " ").split())


# -- errors that nobody foresaw --------------------------------------------------------------------


def test_an_unexpected_error_exits_3_and_keeps_its_traceback(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, small_shards: Path, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("launch.commands.train.train", fail)
        outcome = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={tmp_path}/run")
    assert outcome.code == 3
    assert "error: unexpected ZeroDivisionError: a bug; set FREQGAN_DEBUG=1" in outcome.err
    assert "Traceback" not in outcome.err
    assert "in fail\n" in (tmp_path / "run" / "error.txt").read_text()
    train(capsys, f"data={small_shards}", f"run={tmp_path}/run")
    assert not (tmp_path / "run" / "error.txt").exists()


def test_debugging_shows_tracebacks(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREQGAN_DEBUG", "1")
    outcome = run_command(capsys, "digest", tmp_path)
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")


def test_an_interrupt_exits_130(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.run.checkpoints.open_checkpoint", interrupt)
    outcome = run_command(capsys, "digest", tmp_path)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


# -- dry run ---------------------------------------------------------------------------------------


def test_a_dry_run_prints_settings_that_can_be_read_back_and_the_plan(capsys: Capsys, tmp_path: Path) -> None:
    outcome = run_command(capsys, "train", "smoke", f"run={tmp_path}/run", "image_size=32", "levels=2", "--dry-run")
    assert outcome.code == 0
    text, _, table = outcome.out.partition("\n\n")
    (tmp_path / "printed.yaml").write_text(text)
    printed = load_settings(str(tmp_path / "printed.yaml"), [])
    assert printed == load_settings("smoke", [f"run={tmp_path}/run", "image_size=32", "levels=2"])
    rows = [re.split(r"\s*│\s*", line.strip("│ ")) for line in table.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == ["LL2", "HL2", "LH2", "HH2", "LL1", "HL1", "LH1", "HH1", "image"]
    assert rows[0][:4] == ["1", "LL2", "3x8x8", "-"]
    assert rows[7][:4] == ["8", "HH1", "3x16x16", "LL2, HL2, LH2, HH2, LL1, HL1, LH1"]
    assert rows[8][2] == "3x32x32"
    assert not (tmp_path / "run").exists()


def test_the_parameters_of_a_dry_run_are_those_that_are_trained(capsys: Capsys, run_folder: Path) -> None:
    from cluster.run.checkpoints import find_checkpoint
    from launch.console.plan_table import plan_rows

    checkpoint = find_checkpoint(str(run_folder))
    states = checkpoint.states()
    for row in plan_rows(checkpoint.settings):
        stored = {
            part: sum(t.numel() for name, t in states[row.name].items() if name.startswith(f"{part}."))
            for part in ("generator_adam", "discriminator_adam")  # two moments for every parameter
        }
        assert stored["generator_adam"] == 2 * row.network_parameters
        assert stored["discriminator_adam"] == 2 * (row.discriminator_parameters or 0)


# -- pack, train, generate, digest -----------------------------------------------------------------


def test_packing_says_what_was_packed(capsys: Capsys, tmp_path: Path) -> None:
    for label in ("cats", "dogs"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 2, 3)).save(tmp_path / "images" / label / f"{number}.png")
    (tmp_path / "images" / "notes.txt").write_text("")
    outcome = run_command(capsys, "shards", "pack", tmp_path / "images", tmp_path / "out", "--shard-samples", 4)
    assert outcome.code == 0
    assert outcome.out.startswith("6 images of 2 classes in 2 shards")
    assert "passed over: 1 other file" in outcome.out
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2


def test_a_digest_is_that_of_the_run_and_training_again_changes_nothing(
    capsys: Capsys, run_folder: Path, small_shards: Path
) -> None:
    before = digest(capsys, run_folder)
    assert before[0] == 6
    said = train(capsys, f"data={small_shards}", f"run={run_folder}", "classes=2", "executor=ray")
    assert "is done already, with step 6" in said
    assert "starting Ray" not in said  # for nothing
    assert digest(capsys, run_folder) == before


def test_training_in_two_parts_gives_the_same_state(
    capsys: Capsys, run_folder: Path, small_shards: Path, tmp_path: Path
) -> None:
    where = [f"data={small_shards}", f"run={tmp_path}/run", "classes=2", "checkpoint_every=100"]
    train(capsys, *where, "max_steps=2")
    assert digest(capsys, f"{tmp_path}/run")[0] == 2
    train(capsys, *where)
    assert digest(capsys, f"{tmp_path}/run") == digest(capsys, run_folder)


def test_a_stop_signal_ends_with_75_and_the_same_command_goes_on(
    capsys: Capsys, small_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["smoke", f"data={small_shards}", f"run={run}", "images=2400", "checkpoint_every=1000"]
    process = subprocess.Popen(command_line("train", *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_bytes():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # a group and its process both get one
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, said
    assert "the same command goes on from there" in said
    stopped_step = digest(capsys, run)[0]
    assert 1 <= stopped_step < 300
    assert (run / "report.html").exists()
    goal = f"max_steps={stopped_step + 2}"
    assert f"resumes after step {stopped_step}" in train(capsys, *arguments[1:], goal)
    assert digest(capsys, run)[0] == stopped_step + 2


def test_generating_writes_pictures_and_a_grid(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    outcome = run_command(capsys, "generate", run_folder, "--count", 70, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.out.strip() == f"70 images of step 6, seed 0, in {tmp_path}/out"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"{i:05d}.png" for i in range(70)), "grid.png"]
    first = np.asarray(Image.open(tmp_path / "out" / "00009.png"))
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    assert (first.shape, grid.shape) == ((16, 16, 3), (256, 256, 3))  # twice as large
    assert np.array_equal(grid[32:64:2, 32:64:2], first)
    fewer = run_command(capsys, "generate", run_folder, "--count", 69, "--out", tmp_path / "out")
    assert "out holds 1 more .png files, which are left as they are, such as 00069.png" in fewer.err


def test_a_seed_means_the_same_files(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    for name, options in {"a": ["--seed", 5], "b": ["--seed", 5], "c": ["--seed", 6], "d": ["--seed", 5]}.items():
        count = 3 if name == "d" else 5
        assert (
            run_command(capsys, "generate", run_folder, "--count", count, "--out", tmp_path / name, *options).code == 0
        )
    files = {n: {p.name: p.read_bytes() for p in (tmp_path / n).glob("0*.png")} for n in "abcd"}
    assert files["a"] == files["b"]
    assert all(files["a"][name] != files["c"][name] for name in files["a"])
    assert files["d"] == {name: data for name, data in files["a"].items() if name <= "00002.png"}


def test_a_label_decides_the_class(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    for label in (0, 1):
        where = ["--out", tmp_path / str(label), "--label", label]
        assert run_command(capsys, "generate", run_folder, "--count", 2, *where).code == 0
    pictures = [(tmp_path / str(label) / "00000.png").read_bytes() for label in (0, 1)]
    assert pictures[0] != pictures[1]
    where = ["--out", tmp_path / "named", "--class", "ramps"]
    assert run_command(capsys, "generate", run_folder, "--count", 2, *where).code == 0
    assert (tmp_path / "named" / "00000.png").read_bytes() == pictures[1]


@pytest.mark.parametrize(
    ("category", "what"),
    [
        ("2", "--class 2: the model has no such class; it has 2: 0=edges, 1=ramps"),
        ("ramp", "--class ramp: the model has no such class (did you mean ramps?); it has 2: 0=edges, 1=ramps"),
        ("-1", "--class -1: the model has no such class"),
    ],
)
def test_classes_that_are_not_there(capsys: Capsys, run_folder: Path, tmp_path: Path, category: str, what: str) -> None:
    command = ("generate", run_folder, "--count", 1, "--out", tmp_path / "out", f"--class={category}")
    assert what in refused(run_command(capsys, *command))


def test_names_of_classes_are_stored_with_the_run(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    assert re.search(r"classes +0=edges, 1=ramps *\n", run_command(capsys, "status", run_folder).out)
    checkpoint = find_checkpoint(str(run_folder))
    assert checkpoint.class_names == ("edges", "ramps")
    older = json.loads(json.dumps(checkpoint.manifest))
    del older["data"]["classes"]
    unnamed = Checkpoint(checkpoint.step, checkpoint.root, checkpoint.attempt, older)
    assert unnamed.class_names == ()
    assert class_of("1", unnamed) == 1
    with pytest.raises(InputError, match=r"--class ramps: .*it has 2 classes, 0 to 1, and knows no names of them"):
        class_of("ramps", unnamed)


def test_a_name_that_is_a_number_counts_as_a_name(run_folder: Path) -> None:
    checkpoint = find_checkpoint(str(run_folder))
    manifest = json.loads(json.dumps(checkpoint.manifest))
    manifest["data"]["classes"] = ["1", "0"]
    numbered = Checkpoint(checkpoint.step, checkpoint.root, checkpoint.attempt, manifest)
    assert [class_of(text, numbered) for text in ("1", "0", None)] == [0, 1, None]


# -- the other doors -------------------------------------------------------------------------------


def test_the_module_is_the_same_command(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    arguments = ["smoke", f"data={small_shards}", f"run={tmp_path}/run", "--dry-run"]
    module = [sys.executable, "-m", "launch", "train", *arguments]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert yaml.safe_load(done.stdout.partition("\n\n")[0])["run"] == f"{tmp_path}/run"
    assert run_command(capsys, "train", *arguments).out == done.stdout


def test_everything_in_a_bucket(
    capsys: Capsys, s3_server: str, run_folder: Path, small_shards: Path, tmp_path: Path
) -> None:
    top = f"s3://{BUCKET}/cli"
    for shard in small_shards.glob("*.tar"):
        open_folder(f"{top}/shards").upload(shard, shard.name)
    train(capsys, f"data={top}/shards", f"run={top}/run", "classes=2")
    assert digest(capsys, f"{top}/run") == digest(capsys, run_folder)
    for run, out in ((f"{top}/run", f"{top}/out"), (run_folder, tmp_path / "out")):
        assert run_command(capsys, "generate", run, "--count", 2, "--out", out).code == 0
    bucket = open_folder(f"{top}/out")
    assert bucket.files() == ["00000.png", "00001.png", "grid.png"]
    assert all(bucket.read(name) == (tmp_path / "out" / name).read_bytes() for name in bucket.files())
    assert open_folder(f"{top}/run").exists("report.html")
