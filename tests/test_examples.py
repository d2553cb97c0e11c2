"""The documentation does what it shows: examples run, commands and settings exist, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from freqgan.model.components import components
from launch.cli import app
from launch.settings.load import load_settings, preset_names, setting_names
from launch.settings.policy import Policy, load_policy
from launch.tools.commands_page import Command, commands
from tests.support.commands import ROOT
from tests.support.runs import tiny_run_settings, trained

PAGES = [ROOT / "README.md", ROOT / "k8s" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = {one.name: one for one in commands(app)}
NO_SETTINGS = ("key=value", 'mode="periodization"')
GENERATED = ("docs/commands.md", "docs/settings.md")


def code_lines(page: Path) -> list[str]:
    """The lines of indented code, without their prompts and comments."""
    lines = page.read_text("utf-8").splitlines()
    shown = (line.strip() for line in lines if line.startswith("    ") and not line.lstrip().startswith((">>>", "...")))
    return [re.sub(r"\s+#.*$", "", line) for line in shown]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Every command of the page, in code and within sentences, as words."""
    for text in [*code_lines(page), *CODE.findall(page.read_text("utf-8"))]:
        for part in text.replace("\\|", "|").split("&&"):
            if re.match(r"(?:\.venv/bin/)?freqgan [a-z]", part.strip()):
                yield ["freqgan", *shlex.split(part)[1:]]


def named(words: list[str]) -> Command | None:
    """The command that ``words`` begin with."""
    return COMMANDS.get(" ".join(words[:2])) or COMMANDS.get(" ".join(words[:3]))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- examples --------------------------------------------------------------------------------------


def test_the_page_on_transforms() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "transforms.md"), module_relative=False)
    assert failed == 0
    assert tried > 30


def test_the_page_on_python(small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tiny_run_settings(tmp_path / "runs" / "mine", small_shards, max_steps=2))
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert failed == 0
    assert tried > 20


def test_the_page_on_scans() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "scans.md"), module_relative=False)
    assert failed == 0
    assert tried == 15


def test_the_page_on_style() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "style.md"), module_relative=False)
    assert failed == 0
    assert tried == 9


def test_the_page_on_clips() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "clips.md"), module_relative=False)
    assert failed == 0
    assert tried == 11


def yaml_example(page: str, title: str) -> str:
    """The file that a page shows under a comment with its name."""
    match = re.search(rf"^    # {re.escape(title)}\n((?:    .*\n)+)", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert match is not None
    return re.sub(r"^    ", "", match[1], flags=re.MULTILINE)


def test_the_settings_file_that_is_shown_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml_example("docs/your-own-data.md", "mine.yaml"))
    settings = load_settings(str(tmp_path / "mine.yaml"), [])
    assert (settings.image_size, settings.levels, settings.classes) == (128, 4, 0)
    assert settings.noise_count == 11  # as its comment says


def test_the_islands_that_are_shown_are_components(tmp_path: Path) -> None:
    (tmp_path / "islands.yaml").write_text(yaml_example("docs/islands.md", "islands.yaml"))
    names = ["LL2", "HL-LH-HH2", "HL-LH-HH1"]  # as its comment says
    settings = load_settings(str(tmp_path / "islands.yaml"), ["executor=inline"])
    assert [component.stages for component in components(settings)] == [(name,) for name in names]
    overrides: list[str] = []
    for words in shown_commands(ROOT / "docs" / "islands.md"):
        if words[2] == "islands.yaml":
            overrides += (own := [word for word in words if re.match(r"[a-z_.]+[A-Z0-9]*=", word)])
            load_settings(str(tmp_path / "islands.yaml"), own)
    only = [word.removeprefix("only=").split(",") for word in overrides if word.startswith("only=")]
    assert only == [names[:1], names[1:]]


def test_the_policy_that_is_shown_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(yaml_example("docs/retraining.md", "policy.yaml"))
    policy = load_policy(str(tmp_path / "policy.yaml"))
    assert policy.url == "s3://bucket/models/clothes"
    assert policy.run_settings("run", "data", is_first=True).images == 100_000


# -- commands and settings -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_commands_that_are_shown_exist(name: str) -> None:
    for words in shown_commands(ROOT / name):
        command = named(words)
        assert command is not None, f"{name} shows {shlex.join(words)}"
        known = {spelling for one in command.parameters for spelling in one.spelling.split(" ")[0].split("/")}
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known
        assert unknown == set(), f"{name} shows {shlex.join(words)}"


def test_the_check_of_commands_sees_all_kinds() -> None:
    found = [words for page in PAGES for words in shown_commands(page)]
    assert {command.name for words in found if (command := named(words))} == COMMANDS.keys()
    assert len(found) > 60


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_trainings_that_are_shown_have_settings_that_go_together(name: str) -> None:
    for words in shown_commands(ROOT / name):
        if words[1] in ("train", "plan", "compare") and len(words) > 2 and words[2] in preset_names():
            load_settings(words[2], [word for word in words[3:] if re.match(r"[a-z_.]+=", word) and "..." not in word])


def named_settings(page: Path) -> set[str]:
    """The names before "=" in code within sentences, and dotted names whose first part is a group of settings."""
    heads = {name.partition(".")[0] for name in setting_names() if "." in name}
    texts = set(CODE.findall(page.read_text("utf-8"))) - set(NO_SETTINGS)
    assigned = {match[1] for text in texts if (match := re.fullmatch(r"([a-z_]+(?:\.\w+)*)=\S*", text))}
    dotted = {text for text in texts if re.fullmatch(r"[a-z_]+\.[a-z_.]+", text) and not text.endswith(".json")}
    return assigned | {text for text in dotted if text.partition(".")[0] in heads}


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_settings_that_are_named_exist(name: str) -> None:
    known = {*setting_names(), *Policy.model_fields}
    groups = {setting[: dot.start()] for setting in known for dot in re.finditer(r"\.", setting)}
    unknown = named_settings(ROOT / name) - known - groups
    assert {setting for setting in unknown if setting.rpartition(".")[0] not in known} == set()  # replicas.HL1


def test_the_check_of_settings_sees_those_that_are_named() -> None:
    found = set[str]().union(*(named_settings(page) for page in PAGES))
    assert {"plan.high_gans.1", "feedback.weight", "health.patience", "replicas.HL1"} <= found
    assert len(found) > 30


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if name not in GENERATED])
def test_targets_of_make_and_modules_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {target for line in targets for target in line.split()}
    shown = [*code_lines(ROOT / name), *CODE.findall(text)]
    assert {match[1] for line in shown if (match := re.match(r"make ([a-z-]+)", line))} <= known
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert module in ("venv", "pytest") or importlib.util.find_spec(module), f"{name} names {module}"


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if name not in GENERATED])
def test_files_and_modules_that_are_named_exist(name: str) -> None:
    for text in CODE.findall((ROOT / name).read_text("utf-8")):
        if re.fullmatch(r"(?:freqgan|cluster|launch|tests|docs|k8s)/[\w./-]*", text):
            assert (ROOT / text).exists(), f"{name} names {text}"
        elif re.fullmatch(r"(?:freqgan|cluster|launch)(?:\.[a-z_]+)+", text):
            pkgutil.resolve_name(text)  # which says what is not there


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name} links to {target}; there are {sorted(anchors(file))}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            targets = (target.partition("#")[0] for target in LINK.findall(page.read_text("utf-8")))
            waiting += [(page.parent / target).resolve() for target in targets if target and "://" not in target]
    assert set(PAGES) - reached <= {ROOT / "k8s" / "README.md"}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
