"""The steps of k8s/Dockerfile as they are written, without its dependencies: they are here already."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT

DOCKERFILE = ROOT / "k8s" / "Dockerfile"


def steps() -> Iterator[tuple[str, str]]:
    """Instruction and the rest of its line, comments and line breaks left out."""
    lines = [line.strip() for line in DOCKERFILE.read_text().splitlines()]
    whole = " ".join(line for line in lines if line and not line.startswith("#")).replace("\\ ", "")
    words = ("FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD")
    for word in words:
        whole = whole.replace(f" {word} ", f"\n{word} ")
    for line in whole.splitlines():
        instruction, _, rest = line.partition(" ")
        yield instruction, rest


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder that stands for the image's root, after the steps of the first stage; copied as builders copy."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    environment = os.environ | {
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": site.getsitepackages()[0],
    }
    folder, stages = tmp_path, 0
    for instruction, rest in steps():
        if instruction == "FROM" and (stages := stages + 1) == 2:
            break
        rest = rest.replace("/opt/", f"{tmp_path}/opt/")
        if instruction == "ENV":
            for setting in rest.split():
                name, _, value = setting.partition("=")
                environment[name] = value.replace(f"${name}", environment.get(name, ""))
        elif instruction == "WORKDIR":
            folder = tmp_path / rest.lstrip("/")
            folder.mkdir(parents=True)
        elif instruction == "RUN":
            done = subprocess.run(
                ["/bin/sh", "-c", rest],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
        elif instruction == "COPY":
            *sources, target = rest.split()
            for source in sources:
                assert source in kept, f"{source} is not sent to the builder"
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, folder / target, ignore=ignored, dirs_exist_ok=True)
                else:
                    shutil.copy2(ROOT / source, folder / target)
    return tmp_path


def test_the_steps_run_and_install_what_is_in_the_repository(image: Path) -> None:
    (installed,) = (image / "opt/freqgan/lib").glob("python*/site-packages")
    for package in ("freqgan", "cluster", "launch"):
        for source in (ROOT / package).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                assert (installed / source.relative_to(ROOT)).read_bytes() == source.read_bytes(), source
    assert (image / "opt/freqgan/bin/freqgan").is_file()


def test_the_image_starts_as_a_user_that_is_not_root() -> None:
    last = dict(steps())
    user, _, group = last["USER"].partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert int(user) > 0
    assert last["CMD"] == '["freqgan", "--help"]'
    assert [instruction for instruction, _ in steps()][-3:] == ["USER", "WORKDIR", "CMD"]
