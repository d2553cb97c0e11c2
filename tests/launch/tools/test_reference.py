"""The pages of commands and settings say what the code says, and all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cluster.run.settings import ExecutionSettings, RunSettings
from freqgan.costing.baselines import VARIANTS
from freqgan.model.settings import ModelSettings
from launch.cli import PRESETS, SYSTEMS, app
from launch.settings.load import preset_names, setting_names
from launch.settings.policy import Policy
from launch.tools.commands_page import commands, commands_page, usage
from launch.tools.reference import pages
from launch.tools.settings_page import groups, settings_page, takes
from tests.support.commands import ROOT

NOT_COMPARED = object()


@pytest.mark.parametrize("name", ["commands.md", "settings.md"])
def test_the_committed_pages_are_those_of_the_code(name: str) -> None:
    committed = (ROOT / "docs" / name).read_text("utf-8")
    assert committed == pages()[name], f"docs/{name} is not what the code says: run `make docs` and commit the page"


def test_pages_are_written_into_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.tools import reference

    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    reference.main()
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == pages()


# -- commands --------------------------------------------------------------------------------------


def names_of(command: Any, name: str = "freqgan") -> Iterator[str]:
    """The full names of all commands, by typer's own tree."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    else:
        for key, child in inner.items():
            yield from names_of(child, f"{name} {key}")


def test_every_command_has_a_section() -> None:
    expected = list(names_of(typer.main.get_command(app)))
    assert len(expected) > 20
    assert re.findall(r"^## (.*)$", commands_page(), re.MULTILINE) == expected


def test_every_command_argument_and_option_is_described() -> None:
    listed = list(commands(app))
    assert [one.name for one in listed if not one.paragraphs[0].endswith(".")] == []
    missing = [(one.name, parameter.name) for one in listed for parameter in one.parameters if not parameter.info.help]
    assert missing == []


def test_usage_shows_what_has_to_be_given() -> None:
    by_name = {one.name: usage(one) for one in commands(app)}
    assert by_name["freqgan storage check"] == "freqgan storage check URL"
    assert by_name["freqgan train"] == "freqgan train SETTINGS [key=value ...] [options]"
    assert by_name["freqgan generate"] == "freqgan generate RUN --out OUT [options]"
    assert by_name["freqgan models show"] == "freqgan models show MODEL [NUMBER]"


# -- settings --------------------------------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    """{name of a setting: its other cells} of the page; settings of several groups stand under each of their names."""
    found: dict[str, list[str]] = {}
    for title, body in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", settings_page(), re.MULTILINE):
        places = [f"{group}." for group in re.findall(r"`([\w.]+)`", title)] or [""]
        for line in body.splitlines():
            cells = re.split(r"(?<!\\)\|", line)
            if len(cells) == 7 and cells[1].strip().startswith("`"):
                found |= {place + cells[1].strip(" `"): [cell.strip() for cell in cells[2:6]] for place in places}
    return found


def test_every_setting_has_one_row_with_a_sentence() -> None:
    table = rows()
    assert table.keys() == set(setting_names())
    assert [name for name, cells in table.items() if not cells[3].endswith((".", ")"))] == []


def test_every_key_of_a_policy_is_described() -> None:
    for name, field in Policy.model_fields.items():
        assert f"| `{name}` | {takes(field)} |" in settings_page()
        assert field.description


def test_what_may_change_on_resume_is_what_a_resume_does_not_compare() -> None:
    compared = RunSettings().identity()
    for name, (_, _, may_change, _) in rows().items():
        values: Any = compared
        for key in name.split("."):
            values = values.get(key, NOT_COMPARED) if isinstance(values, dict) else values
        assert may_change == ("yes" if values is NOT_COMPARED else "no"), name
    assert [name for name, cells in rows().items() if cells[2] == "yes" and "." in name and name[:10] != "generation"
            and name.partition(".")[0] not in ExecutionSettings.model_fields] == ["conditioning.run"]  # fmt: skip


def test_no_setting_of_the_model_may_change_on_resume() -> None:
    assert ExecutionSettings.model_fields.keys() & ModelSettings.model_fields.keys() == set()
    assert {"threads", "exchange", "ingest", "seed", "batch"} <= RunSettings().identity().keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("window", "whole number, 1 to 64"),
        ("max_steps", "whole number or null, at least 1"),
        ("executor", "`inline` or `ray`"),
        ("replicas", "table of text: whole number"),
        ("packets", "table of whole number: whole number"),
        ("heartbeat_timeout_s", "number, above 0"),
        ("cuda_graphs", "true or false"),
        ("channels", "whole number, 1 to 64"),
    ],
)
def test_kinds_and_bounds_are_put_into_words(name: str, expected: str) -> None:
    assert takes(RunSettings.model_fields[name]) == expected


def test_groups_are_found_at_every_depth() -> None:
    names = [group.name for group in groups(RunSettings, RunSettings())]
    assert {"loss", "image_stage", "image_stage.generator", "feedback.discriminator", "ingest", "watch"} <= set(names)
    assert len(names) == len(set(names))


def test_the_help_names_all_presets_and_systems() -> None:
    """They are written out in the command line, which is to load nothing for its help."""
    assert PRESETS.split(", ") == preset_names()
    assert set(SYSTEMS.split(",")) == set(VARIANTS)
