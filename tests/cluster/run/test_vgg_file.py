"""Files of VGG19's weights: every format is read, and nothing else; no code of a file is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.run.vgg_file import load_vgg19, origin_text
from cluster.storage.folder import Folder
from freqgan.errors import InputError
from tests.support.vgg import random_weights

OFFICIAL = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
SMALL = {"features.0.weight": torch.arange(64 * 27.0).reshape(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}


def legacy(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def zipped(path: Path, content: Any) -> None:
    torch.save(content, path)


def safe(path: Path, content: dict[str, Tensor]) -> None:
    path.write_bytes(save_safetensors(content))


Writer = Callable[[Path, Any], None]
FORMATS = [legacy, zipped, safe]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_weights(weights: dict[str, Tensor], write: Writer, tmp_path: Path) -> None:
    path, notes = tmp_path / "weights", list[str]()
    write(path, weights | {"classifier.0.weight": torch.zeros(8, 8)})
    network = load_vgg19(str(path), notes.append, "average")
    assert network.pooling == "average"
    for mine, read in zip(weights.values(), network.parameters(), strict=True):
        assert torch.equal(mine, read)
    (note,) = notes
    assert note.startswith(f"{path} is no file that is known (sha256 ")


def test_the_official_file_is_known() -> None:
    assert origin_text("x.pth", OFFICIAL) == "x.pth is vgg19-dcbb9e9d.pth of torchvision"
    assert "no file that is known" in origin_text("x.pth", OFFICIAL[::-1])


def test_halves_become_float32(weights: dict[str, Tensor], tmp_path: Path) -> None:
    safe(tmp_path / "half", {name: x.half() for name, x in weights.items()})
    network = load_vgg19(str(tmp_path / "half"), lambda _: None)
    for mine, read in zip(weights.values(), network.parameters(), strict=True):
        assert torch.equal(mine.half().float(), read)


def test_it_is_read_from_a_disk_and_from_a_bucket(folder: Folder, tmp_path: Path) -> None:
    legacy(tmp_path / "small.pth", SMALL)
    folder.write("weights/small.pth", (tmp_path / "small.pth").read_bytes())
    assert "lacks features.2.weight" in refusal(f"{folder.url}/weights/small.pth")
    assert refusal(f"{folder.url}/weights/absent.pth")


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_vgg19(str(path), lambda _: None)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(write: Writer, share: float, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write(path, SMALL)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    text = refusal(path)
    assert "\n" not in text
    assert "cut off" in text


@pytest.mark.parametrize("write", FORMATS)
def test_another_network_is_refused(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write(path, SMALL)
    assert "it lacks features.2.weight (of shape (64, 64, 3, 3)) and has features.0" in refusal(path)
    write(path, {"features.0.weight": torch.zeros(96, 3, 11, 11)})
    assert "features.0.weight has shape (96, 3, 11, 11) in place of (64, 3, 3, 3)" in refusal(path)
    write(path, {"layer": torch.zeros(1)})
    assert "it lacks features.0.weight (of shape (64, 3, 3, 3)) and has layer;" in refusal(path)


class Touch:
    """When it is unpickled the way that pickles are, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("write", [legacy, zipped, lambda path, content: path.write_bytes(pickle.dumps(content))])
def test_code_is_refused_and_not_run(write: Writer, hidden: bool, tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "weights"
    write(path, SMALL | {"features.2.weight": Touch(touched)} if hidden else Touch(touched))
    text = refusal(path)
    assert "nothing of it was run" in text
    assert ".mkdir" in text or write not in (legacy, zipped)
    assert not touched.exists()
    with path.open("rb") as file:  # the file does what it is said to
        if write not in (legacy, zipped):
            pickle.load(file)  # noqa: S301
            assert touched.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text", 7, {"a": 1}, {3: torch.zeros(1)}])
def test_what_is_no_table_of_tensors_is_refused(content: object, tmp_path: Path) -> None:
    zipped(tmp_path / "weights", content)
    assert "features.0.weight" in (text := refusal(tmp_path / "weights")) or "not tensors by their names" in text


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello", b"PK\x03\x04" + bytes(50), bytes(64)])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(data)
    refusal(tmp_path / "weights")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "absent.pth")
    with pytest.raises(InputError, match=str(tmp_path)):
        load_vgg19(str(tmp_path), lambda _: None)
