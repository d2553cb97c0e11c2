"""Settings: precedence, unknown keys, refused values, presets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from freqgan.setting_group import AS_STORED
from launch.settings.load import dump_settings, load_settings, preset_names, setting_names, validate_settings


def write(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text)
    return str(path)


def problem(source: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_settings(source, list(overrides))
    return str(caught.value)


# -- precedence ------------------------------------------------------------------------------------


def test_a_file_overrides_defaults_and_key_value_overrides_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "batch: 7\nlevels: 1\n")
    settings = load_settings(file, ["levels=3"])
    assert (settings.batch, settings.levels, settings.image_size) == (7, 3, RunSettings().image_size)


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "preset: smoke\nbatch: 3\n"), [])
    assert (settings.batch, settings.image_size) == (3, load_settings("smoke", []).image_size)


def test_groups_are_merged_setting_by_setting(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: smoke\nband_generator: {blocks: 3}\nimage_stage: {tie: 2.5}\n")
    settings, preset = load_settings(file, ["image_stage.solo_share=0.25"]), load_settings("smoke", [])
    assert (settings.band_generator.blocks, settings.band_generator.width) == (3, preset.band_generator.width)
    assert (settings.image_stage.tie, settings.image_stage.solo_share) == (2.5, 0.25)
    assert settings.image_stage.generator == preset.image_stage.generator


def test_a_setting_that_is_a_table_is_replaced_whole_or_entry_by_entry(tmp_path: Path) -> None:
    file = write(tmp_path, "levels: 3\nnoise: {dimensions: 128}\nplan: {low_gans: {1: 2, 2: 3}}\n")
    assert load_settings(file, []).plan.low_gans == {1: 2, 2: 3}
    assert load_settings(file, ["plan.low_gans={3: 2}"]).plan.low_gans == {3: 2}
    assert load_settings(file, ["plan.low_gans.1=3"]).plan.low_gans == {1: 3, 2: 3}


def test_the_last_of_two_equal_keys_wins() -> None:
    assert load_settings("smoke", ["batch=3", "batch=5"]).batch == 5


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optimiser.learning_rate=1e-4", "optimiser.learning_rate", 1e-4),  # YAML 1.1 reads 1e-4 as text
        ("max_steps=null", "max_steps", None),
        ("max_steps=12", "max_steps", 12),
        ("run=2024", "run", "2024"),
        ("data=", "data", ""),
        ("data=s3://bucket/a=b/*.tar", "data", "s3://bucket/a=b/*.tar"),
        ("augmentation.flip=false", "augmentation.flip", False),
        ("images=4_000", "images", 4000),
        ("transform=dwt:db2", "transform", "dwt:db2"),
        ("plan.bands=[LL1, HH1]", "plan.bands", ["LL1", "HH1"]),
    ],
)
def test_values_are_yaml_and_text_stays_text(text: str, key: str, value: object) -> None:
    found: Any = load_settings("smoke", [text])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


# -- presets ---------------------------------------------------------------------------------------


def test_the_presets_are_those_promised() -> None:
    assert preset_names() == [
        "cifar10",
        "cifar10-flow",
        "cifar10-mixed",
        "clips",
        "clothing",
        "demo",
        "fusion",
        "photos-256",
        "photos-64",
        "scans",
        "smoke",
    ]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_writing_and_reading(name: str, tmp_path: Path) -> None:
    table = "flow.crop.1=8" if name == "fusion" else "plan.low_gans.1=1"  # with a number as its key
    settings = load_settings(name, [table])
    assert load_settings(write(tmp_path, dump_settings(settings)), []) == settings


@pytest.mark.parametrize(
    ("name", "image_size", "levels", "classes"),
    [
        ("cifar10", 32, 2, 10),
        ("clothing", 64, 3, 10),
        ("demo", 32, 1, 9),
        ("fusion", 32, 1, 10),
        ("photos-64", 64, 3, 4),
        ("photos-256", 256, 4, 0),
        ("scans", 128, 3, 0),
    ],
)
def test_presets_fit_their_images(name: str, image_size: int, levels: int, classes: int) -> None:
    settings = load_settings(name, [])
    assert (settings.image_size, settings.levels, settings.classes) == (image_size, levels, classes)


def test_an_unknown_preset_names_the_nearest() -> None:
    message = problem("cifr10")
    assert "'cifr10'" in message
    assert "did you mean cifar10" in message
    assert "photos-256" in message


# -- files that cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("levels: [1\n", "line 2"),
        ("- levels\n", "holds a list"),
        ("levels: 1\nlevels: 2\n", "'levels' is given twice (line 2, column 1)"),
        ("loss:\n  gamma: 1\n  gamma: 2\n", "'gamma' is given twice (line 3"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("preset: cifr10\n", "did you mean cifar10"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in problem(write(tmp_path, text))


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "# nothing\n"), []) == RunSettings()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is no text file" in problem(str(tmp_path / "binary.yaml"))


def test_a_missing_file_is_named_with_the_presets() -> None:
    message = problem("nowhere/settings.yaml")
    assert "no such settings file: nowhere/settings.yaml" in message
    assert "smoke" in message


# -- unknown settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("levls=2", "levels"),
        ("optimizer.learning_rate=1e-3", "optimiser.learning_rate"),
        ("learning_rate=1e-3", "optimiser.learning_rate"),
        ("optimiser.lerning_rate=1e-3", "optimiser.learning_rate"),
        ("image_stage.ty=1", "image_stage.tie"),
        ("gamma=1", "loss.gamma"),
        ("lr=1e-3", "optimiser.learning_rate"),
        ("wavelet=db2", "transform"),  # which its description speaks of
    ],
)
def test_an_unknown_setting_names_the_nearest(override: str, nearest: str) -> None:
    message = problem("smoke", override)
    assert f"unknown setting {override.partition('=')[0]!r}" in message
    assert nearest in message.partition("did you mean")[2]


def test_an_unknown_setting_in_a_file_is_found_inside_groups(tmp_path: Path) -> None:
    message = problem(write(tmp_path, "image_stage: {generator: {widht: 8}}\n"))
    assert "unknown setting 'image_stage.generator.widht'" in message
    assert "image_stage.generator.width" in message.partition("did you mean")[2]


def test_every_setting_has_one_name() -> None:
    names = setting_names()
    assert len(names) == len(set(names))
    assert {"levels", "optimiser.learning_rate", "image_stage.discriminator.width", "ingest.crop"} <= set(names)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss=3", "loss: is a group of settings and cannot be 3; it holds kind, gamma"),
        ("levels", "'levels' is no setting: write key=value"),
        ("=3", "'=3' is no setting"),
        ("levels=[1", "levels: '[1' is no valid YAML value"),
        ("preset=demo", "a preset is named in the place of SETTINGS"),
        ("levels.deep.er=1", "unknown setting 'levels.deep.er'"),
    ],
)
def test_overrides_that_are_no_settings(override: str, expected: str) -> None:
    assert expected in problem("smoke", override)


# -- values that are refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("levels=-1", "levels = -1: must be greater than or equal to 0"),
        ("batch=many", "batch = 'many': must be"),
        ("loss.kind=foo", "loss.kind = 'foo': must be 'relativistic' or 'hinge'"),
        ("image_stage.solo_share=1.5", "image_stage.solo_share = 1.5: must be less than or equal to 1"),
        ("plan.bands=3", "plan.bands = 3: must be 'all' or 'none' or a valid list"),
        ("channels=65", "channels = 65: must be less than or equal to 64"),
        ("plan.low_gans={1: x}", "plan.low_gans.1 = 'x': must be a valid integer"),
        ("noise.training=orthogonal", "noise.training = 'orthogonal': must be 'haar', 'hurwitz', 'split' or "),
    ],
)  # fmt: skip
def test_a_refused_value_names_key_value_and_bound(override: str, expected: str) -> None:
    assert expected in problem("smoke", override)


def test_all_refused_values_are_named_at_once() -> None:
    message = problem("smoke", "levels=-1", "loss.gamma=-1")
    assert "levels = -1" in message
    assert "loss.gamma = -1" in message


def test_text_that_yaml_took_for_a_number_asks_for_quotes(tmp_path: Path) -> None:
    message = problem(write(tmp_path, "run: 2024\n"))
    assert "run = 2024: must be a valid string (put it in quotes)" in message


PIXELS = ["conditioning=features", "conditioning.network=pixels"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["levels=5", "image_size=32"], "the largest that fits is 3"),
        (["transform=dwt:harr"], "did you mean haar"),
        (["noise.dimensions=2"], "set noise.dimensions to 4"),
        (["plan.bands=[HL1]"], "LL1 has no GAN"),
        (
            ["conditioning.run=runs/base"],
            "with conditioning=none, but its images are shown by their features: add features",
        ),
        (
            ["classes=2", "conditioning=class", "conditioning.run=runs/base"],
            "conditioning.run: runs/base with conditioning=class,",
        ),
        ([*PIXELS, "conditioning.run=runs/base"], "set augmentation.flip=false, or another conditioning.network"),
        ([*PIXELS, "augmentation.flip=false", "augmentation.shift=1"], "set augmentation.shift=0, or another"),
    ],
)
def test_the_models_own_messages_are_kept_as_they_are(overrides: list[str], expected: str) -> None:
    message = problem("smoke", *overrides)
    assert expected in message
    assert "value_error" not in message.lower()
    assert "Value error" not in message


def test_the_run_of_a_cascade_is_a_setting_that_a_resume_does_not_compare() -> None:
    first, second = (
        load_settings("smoke", [*PIXELS, "augmentation.flip=false", f"conditioning.run={run}"]) for run in ("one", "2")
    )
    assert (first.conditioning.run, second.conditioning.run) == ("one", "2")
    assert first.identity() == second.identity()
    assert first.identity() != load_settings("smoke", ["augmentation.flip=false"]).identity()


# -- kinds of values -------------------------------------------------------------------------------

NO_NUMBERS = [".nan", "nan", ".inf", "-.inf", "+.INF", "inf", "1e400", "-1e400", "true", "yes", "off", '"3"', "'0.5'",
              "010", "1:30", "1_", "2024-01-01", "[1]", "{1: 2}", "!!float x", "!!binary aGk=", "9" * 5000]  # fmt: skip


def numbers(group: type[BaseModel] = RunSettings, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings that are numbers."""
    for key, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{key}.")
        elif field.annotation in (int, float, int | None):
            yield prefix + key


def nested(name: str, value: object) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def test_no_setting_takes_for_a_number_what_is_none() -> None:
    names = list(numbers())
    assert len(names) > 50
    for name in names:
        for value in (float("nan"), float("inf"), -float("inf"), True, False, "3", "nan", 2**64, [1]):
            with pytest.raises(InputError, match=rf"^{re.escape(name)} = "):
                validate_settings(nested(name, value))


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_however_it_is_written(value: str) -> None:
    for name in ("batch", "loss.gamma", "max_steps"):
        assert name in problem("smoke", f"{name}={value}")


@pytest.mark.parametrize("value", ["true", ".inf", "1e400", '"2"', "9" * 30])
def test_nor_do_entries_of_tables_and_lists(value: str) -> None:
    for override in (f"plan.low_gans.1={value}", f"plan.low_gans={{1: {value}}}", f"replicas.HL1={value}",
                     f"ingest.background=[0, {value}, 0]", f"channels={value}", f"packets.1={value}"):  # fmt: skip
        message = problem("smoke", override)
        assert override.partition("=")[0].partition(".1")[0].removesuffix(".HL1") in message, message
    assert "plan.low_gans = {True: 1}: must be a whole number, not true or false" in problem(
        "smoke", "plan.low_gans={true: 1}"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), (".5", 0.5), ("5.", 5.0), ("2", 2.0), ("1_0.5", 10.5), ("+3.0", 3.0)],
)
def test_ways_to_write_a_number(value: str, expected: float) -> None:
    found = load_settings("smoke", [f"loss.gamma={value}"]).loss.gamma
    assert (found, type(found)) == (expected, float)


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "1:30", "010", "2024-01-01", "y", "0b1", "=", "null2"])
def test_words_stay_words(word: str, tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, f"run: {word}\n"), []).run == word


@pytest.mark.parametrize(("word", "expected"), [("no", False), ("off", False), ("yes", True), ("true", True)])
def test_truth_values_may_be_words(word: str, expected: bool, tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, f"augmentation: {{flip: {word}}}\n"), []).augmentation.flip is expected


NAMES = ["1e5", "010", "no", "~", "", " a ", "a\nb", "é", "<<", "0o7", "4_000", ".5", "a: b", "#a", "{a", "'", '"',
         "\x85", "\u2028", "😀", "runs/{{ x }}", "{% x %}", "[/b]", "1:30", "NaN", "*", "&a", "!x", "a\\"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_survives_writing_and_reading(name: str, tmp_path: Path) -> None:
    settings = RunSettings(run=name, data=name)
    text = dump_settings(settings)
    assert load_settings(write(tmp_path, text), []) == settings
    assert yaml.safe_load(text)["run"] == name  # for whoever reads it with YAML 1.1


def test_settings_that_an_older_version_stored_are_read() -> None:
    stored = RunSettings().model_dump(mode="json")
    stored["feedback"]["reach"] = float("inf")
    stored["plan"]["high_gans"] = {"1": 3}
    for read in (RunSettings.model_validate(stored, context=AS_STORED), validate_settings(stored, stored=True)):
        assert (read.feedback.reach, read.plan.high_gans) == (float("inf"), {1: 3})
    with pytest.raises(InputError, match=r"feedback\.reach = inf: must be a finite number"):
        validate_settings(stored)


# -- YAML that is not what was meant ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("levels: 1\nrun: {{ run }}\n", ["line 2", "a template that was not filled in", "in quotes"]),
        ("levels: 1\nrun: runs/{{ run }}/1\n", ["line 2", "a template that was not filled in"]),
        ("run: {% if x %}\n", ["line 1", "a template"]),
        ("{{ settings }}\n", ["line 1", "a template"]),
        ("? [1, 2]\n: 3\n", ["a key must be a word (line 1"]),
        ("loss:\n\tgamma: 1\n", ["line 2", "with spaces, not with tabs"]),
        ("data: *.tar\n", ["line 1", "in quotes"]),
        ("data: @x\n", ["line 1", "in quotes"]),
        ("1: x\n", ["unknown setting '1'"]),
        ("null: x\n", ["unknown setting 'None'"]),
        ("plan: {low_gans: {1: 1, 1: 2}}\n", ["'1' is given twice"]),
        ('plan: {low_gans: {1: 1, "1": 2}}\n', ["'1' is given twice"]),
        ("plan: {low_gans: {1: 1, 1.0: 2}}\n", ["'1.0' is given twice"]),
        ("run: !!binary aGk=\n", ["could not determine a constructor", "line 1"]),
        ("levels: !!int x\n", ["'x' is no whole number", "line 1"]),
        ("levels: !!bool x\n", ["'x' is neither true nor false"]),
        ("run: a\nseed: \x07\n", ["#x0007", "line 2"]),
        ("a: 1\n---\nb: 1\n", ["another document"]),
        ("[" * 1000, ["nested too deep"]),
        ("plan: {bands: &x [*x]}\n", ["plan.bands"]),
        ("loss: 3\n", ["loss: is a group of settings and cannot be 3"]),
        ("preset: [1]\n", ["no preset or settings file"]),
        ("run: true\n", ["run = True: must be a valid string (put it in quotes)"]),
    ],
)
def test_faults_of_a_file_are_told_with_their_place(text: str, expected: list[str], tmp_path: Path) -> None:
    message = problem(write(tmp_path, text))
    assert [part for part in expected if part not in message] == [], message


def test_aliases_do_not_make_a_message_huge(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]
    text = "\n".join(["plan:", "  bands:", *(f"    - {line.partition(': ')[2]}" for line in lines)])
    assert len(problem(write(tmp_path, text + "\n"))) < 5_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_file_of_another_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes("run: café\n".encode(encoding))
    assert "saved as UTF-8" in problem(str(path))


def test_a_mark_before_utf_8_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes("run: café\n".encode("utf-8-sig"))
    assert load_settings(str(path), []).run == "café"


def test_a_folder_and_a_name_too_long_are_no_settings_file(tmp_path: Path) -> None:
    assert "it is a folder" in problem(str(tmp_path))
    assert "no preset or settings file" in problem("x" * 300)
    assert "no such settings file" in problem(f"{tmp_path}/{'x' * 300}.yaml")


# -- dotted keys -----------------------------------------------------------------------------------


def test_keys_of_a_file_may_be_dotted_as_on_the_command_line(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "preset: photos-64\nplan.low_gans.1: 1\nplan.high_gans: {2: 1}\nimage_stage.generator: {width: 16}\n"
        "image_stage: {tie: 3, discriminator.width: 8}\noptimiser.learning_rate: 1e-3\nnoise.dimensions: 128\n",
    )
    settings, preset = load_settings(file, []), load_settings("photos-64", [])
    assert (settings.plan.low_gans, settings.plan.high_gans) == (preset.plan.low_gans | {1: 1}, {2: 1})
    assert settings.image_stage.generator == preset.image_stage.generator.model_copy(update={"width": 16})
    assert (settings.image_stage.tie, settings.image_stage.discriminator.width) == (3, 8)
    assert settings.optimiser.learning_rate == 1e-3
    assert load_settings(file, ["image_stage.tie=4"]).image_stage.tie == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.gamma: 1\nloss: {gamma: 2}\n", "loss.gamma is given twice, with dots and without"),
        ("plan: {low_gans: {1: 1}}\nplan.low_gans.1: 2\n", "plan.low_gans.1 is given twice"),
        ("plan.low_gans: {1: 1}\nplan.low_gans.1: 2\n", "plan.low_gans.1 is given twice"),
        ("loss: {gamma: 1}\nloss.gama: 1\n", "unknown setting 'loss.gama' (did you mean loss.gamma"),
        ("plan.high_gans.1.2: 1\n", "plan.high_gans = '1.2': must be a valid integer"),
        ("loss..gamma: 1\n", "unknown setting 'loss..gamma'"),
        ("run.x: 1\n", "run = {'x': 1}"),
        ("loss: 3\nloss.gamma: 1\n", "loss: is a group of settings and cannot be 3"),
    ],
)
def test_dotted_keys_that_cannot_be(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in problem(write(tmp_path, text))


def test_no_unknown_setting_suggests_itself(tmp_path: Path) -> None:
    for name in setting_names()[::5]:
        for text in (f"{name}x: 1\n", f"{name}.y: 1\n"):
            message = problem(write(tmp_path, text))
            key = text.partition(":")[0]
            assert key not in re.split(r"[ ,?()]+", message.partition("did you mean")[2]), message


def test_no_image_stage_in_one_word(tmp_path: Path) -> None:
    """In a file and on the command line; what else is set of the stage stays."""
    file = tmp_path / "settings.yaml"
    file.write_text("preset: smoke\nimage_stage: none\n")
    stage = load_settings("smoke", []).image_stage
    assert stage.enabled
    without = stage.model_copy(update={"enabled": False})
    assert load_settings(str(file), []).image_stage == without
    assert load_settings("smoke", ["image_stage=none"]).image_stage == without
    assert load_settings("smoke", ["image_stage=none", "image_stage.enabled=true"]).image_stage == stage
    assert load_settings(str(file), ["image_stage.enabled=true"]).image_stage == stage
    with pytest.raises(
        InputError, match=r"cannot be 'nine'; image_stage=none is short for image_stage.enabled=false; it"
    ):
        load_settings("smoke", ["image_stage=nine"])


def test_one_kind_for_all_experts_in_one_word(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("preset: smoke\nexperts: flow\nimage_stage: none\n")
    for settings in (load_settings(str(file), []), load_settings("smoke", ["experts=flow", "image_stage=none"])):
        assert settings.experts == {"default": "flow"}
        assert {gan.kind for gan in settings.band_plan().gans} == {"flow"}
    assert load_settings(str(file), ["experts.LL1=gan"]).experts == {"default": "flow", "LL1": "gan"}
