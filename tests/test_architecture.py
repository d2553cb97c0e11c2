"""Imports go down only: launch -> cluster -> freqgan -> torch; each foreign library in as few files as it needs."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "freqgan": {"ray", "webdataset", "s3fs", "fsspec", "boto3", "botocore", "cluster", "launch", "torch.distributed"},
    "cluster": {"launch", "typer", "rich", "matplotlib"},
    "launch": {"webdataset", "s3fs", "fsspec", "torch.distributed"},
}
FILES_ALLOWED = {"webdataset": 1, "s3fs": 1, "fsspec": 1, "torch.distributed": 2}
FLOORS = {
    "cluster": {
        "storage": 1, "formats": 1, "data": 2, "run": 3, "evaluation": 4, "imaging": 4, "stages": 4, "planning": 5,
        "execution": 5, "ray_engine": 6, "training": 7, "serving": 8,
    },
    "launch": {
        "settings": 1, "drawing": 1, "run_folder": 2, "console": 3, "pages": 4, "live": 4, "commands": 5, "cli": 6,
        "serve_application": 6, "__main__": 7, "tools": 7,
    },
    "freqgan": {
        "errors": 1, "bands": 1, "version": 1, "tensor_dicts": 1, "bit_depth": 1, "sizes": 1, "targets": 1, "seeds": 2,
        "pixels": 2, "setting_group": 2, "layouts": 2, "transforms": 3, "networks": 3, "recipe": 3, "runtime": 3,
        "model": 4,
        "companions": 5, "metrics": 5, "training": 6, "generation": 6, "costing": 7, "export": 7,
    },
}  # fmt: skip
"""The packages of a layer, and modules beside them: each imports those on lower floors alone."""
CODE = re.compile("`([a-z_]+)`")
VAGUE = {"utils", "util", "helpers", "common", "misc", "manager"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The package of a layer that a module is in, or its own name."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def within(name: str, root: str) -> bool:
    return name == root or name.startswith(root + ".")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_down_only(package: str) -> None:
    assert modules(package)
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in modules(package)
        for name in imported(path)
        if any(within(name, root) for root in FORBIDDEN[package])
    ]
    assert wrong == []


@pytest.mark.parametrize("library", FILES_ALLOWED)
def test_each_machine_library_has_few_homes(library: str) -> None:
    homes = {str(p) for package in FORBIDDEN for p in modules(package) for n in imported(p) if within(n, library)}
    assert len(homes) <= FILES_ALLOWED[library], homes


def test_ray_has_one_home_and_ray_serve_another() -> None:
    """Of Ray the service imports Ray Serve and the errors that its calls end in, in one file."""
    names = {(p.relative_to(ROOT).parts[:2], p.name, n) for layer in FORBIDDEN for p in modules(layer)
             for n in imported(p) if within(n, "ray")}  # fmt: skip
    assert {home for home, _, _ in names} == {("cluster", "ray_engine"), ("cluster", "serving")}
    of_serving = {(file, name) for home, file, name in names if home == ("cluster", "serving")}
    assert {file for file, _ in of_serving} == {"deployment.py"}
    allowed = ("ray.serve", "ray.exceptions")
    assert [n for _, n in of_serving if n != "ray" and not any(within(n, root) for root in allowed)] == []
    assert not any(within(n, "ray.serve") for home, _, n in names if home != ("cluster", "serving"))


@pytest.mark.parametrize("layer", FLOORS)
def test_packages_import_those_on_lower_floors(layer: str) -> None:
    floors = FLOORS[layer]
    packages = {room(path) for path in modules(layer)} - {"__init__"}
    assert packages == floors.keys()
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in modules(layer)
        for name in imported(path)
        if name.startswith(f"{layer}.")
        for home, other in [(room(path), name.split(".")[1])]
        if home in floors and other in floors and other != home and floors[other] >= floors[home]
    ]
    assert wrong == []


def test_the_page_on_development_shows_these_floors() -> None:
    page = (ROOT / "docs" / "development.md").read_text("utf-8")
    for layer, floors in FLOORS.items():
        table = page.partition(f"\n`{layer}/` ")[2].partition("|---|---|---|\n")[2]
        rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", table.partition("\n\n")[0], re.MULTILINE)
        shown = {name: set(map(int, numbers.split(", "))) for numbers, names in rows for name in CODE.findall(names)}
        assert shown.keys() == floors.keys() - {"__main__"}
        assert [name for name, numbers in shown.items() if floors[name] not in numbers] == []


@pytest.mark.parametrize("layer", FLOORS)
def test_every_package_says_what_is_in_it(layer: str) -> None:
    """In at most six lines, with names of modules that are there."""
    for package in [path.parent for path in modules(layer) if path.name == "__init__.py"]:
        name = ".".join(package.relative_to(ROOT).parts)
        text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
        assert 1 <= len([line for line in text.splitlines() if line.strip()]) <= 6, name
        for word in re.findall(r"``([a-z0-9_]+)``", text):
            path = next((home / word for home in (package, ROOT) if (home / word).is_dir()), package / f"{word}.py")
            assert path.exists() or hasattr(importlib.import_module(name), word), f"{name} names {word}"
        for word in re.findall(r":mod:`([\w.]+)`", text):
            assert importlib.util.find_spec(word), f"{name} names {word}"


def test_the_check_sees_what_it_should(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("def f():\n    import ray.util\n    from torch import distributed\n")
    assert {"ray.util", "torch.distributed"} <= set(imported(sample))


def test_no_test_imports_another() -> None:
    """What tests share is in tests/support."""
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(tests) > 60
    wrong = [(path.name, name) for path in tests for name in imported(path) if ".test_" in name]
    assert wrong == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [p for package in FORBIDDEN for p in modules(package) if p.stem in VAGUE] == []


def test_no_import_cycles() -> None:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
             for package in FORBIDDEN for p in modules(package)}  # fmt: skip
    edges = {name: {n for n in imported(path) if n in names and n != name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in names:
        visit(name, ())


def test_actors_that_only_read_and_write_start_without_torch() -> None:
    code = "import sys, cluster.ray_engine.io_actors; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_stages_start_and_train_without_compilers(small_shards: Path, tmp_path: Path) -> None:
    """torch.compile's half of torch, SciPy and Numba take longer to load than all the rest, in every process."""
    code = (
        "import sys, cluster.ray_engine.worker_group, cluster.ray_engine.executor\n"
        "from tests.support.runs import tiny_run_settings, trained\n"
        "print(trained(tiny_run_settings(*sys.argv[1:], max_steps=1))[0].step)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'scipy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(small_shards)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n[]\n"
