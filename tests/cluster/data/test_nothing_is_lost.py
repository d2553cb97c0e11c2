"""Whatever a folder, a zip or a tar of images looks like: every image is packed and read, or its absence is told."""

from __future__ import annotations

import io
import os
import random
import re
import tarfile
import tempfile
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster.data.decoding import decode_image
from cluster.data.packing import PackReport, pack
from cluster.data.shard_index import build_index, index_shards, verify_shards
from cluster.data.shards import JOINED, ZEROS
from cluster.run.data_source import open_source
from freqgan.errors import InputError
from tests.support.commands import run_command
from tests.support.runs import tiny_run_settings

SIDE = 16
KINDS = ("JPEG", "PNG", "WEBP")
EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "JPG", "PNG", "Jpeg", "JFIF", "WEBP")
"""Of images; which of them an image has says nothing of its format."""

QUICK = settings(
    max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
THOROUGH = settings(QUICK, max_examples=int(os.environ.get("FREQGAN_EXAMPLES", "250")))


@cache
def image(number: int) -> bytes:
    """One that differs from that of any other number."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    options = {"lossless": True} if KINDS[number % 3] == "WEBP" else {}
    Image.fromarray(pixels).save(buffer, KINDS[number % 3], **options)
    return buffer.getvalue()


Content = Counter[tuple[bytes, int]]
"""How often there is an image of these pixels and this label (-1: none)."""


def pixels_of(number: int) -> bytes:
    return decode_image(image(number), "image").tobytes()


def read_all(data: Path) -> Content:
    """What a training gets in its first epoch, by the way it gets it."""
    source = open_source(tiny_run_settings(data / "run", data))
    with source.ingest() as ingest:
        batch = source.batch(ingest, 0, source.index.sample_count)
    return Counter((pixels.tobytes(), int(label)) for pixels, label in zip(batch.pixels, batch.targets, strict=True))


def check_commands(data: Path, images: int, capsys: pytest.CaptureFixture[str]) -> str:
    """`info` counts them all, `verify` has nothing to say against them, `index` says the same; what `info` prints."""
    told = run_command(capsys, "shards", "info", data)
    assert told.code == 0, told.err
    assert re.search(rf"^ *images +{images}: ", told.out, re.MULTILINE), told.out
    assert [what for _, _, what in verify_shards(str(data)) if what] == []
    return told.out


# -- folders and zips ------------------------------------------------------------------------------

LETTERS = st.sampled_from("abAB019 .-_[]{}*?%~#'é日")
ODD = ("cat", "Cat", "dog", "0", "1", "2", "10", "11", "007", "café", "cafe\u0301", "v1.0", "cats ", "[v2]", "{a,b}",
       "x.png", "a\\b", "__MACOSX", ".git", "-1", "9" * 60, "%d", "~", "*")  # fmt: skip
PART = st.one_of(st.sampled_from(ODD), st.text(LETTERS, min_size=1, max_size=6)).filter(lambda x: x not in (".", ".."))


@dataclass
class Source:
    """Images by path, with the number of their picture, and what else there is."""

    images: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """Class folders, or none, below any number of folders that hold all; sometimes images where they should not be."""
    top = draw(st.lists(PART, max_size=2))
    classes = draw(st.lists(PART, max_size=5, unique=True))
    found, number = Source(), 0
    for name in classes or [""]:
        for stem in draw(st.lists(PART, min_size=0 if classes else 1, max_size=4, unique=True)):
            deeper = draw(st.sampled_from([[], [], ["deep"]])) if classes else []
            file = f"{stem}.{draw(st.sampled_from(EXTENSIONS))}"
            found.images["/".join([*top, *filter(None, [name]), *deeper, file])] = number
            number += 1
        found.folders.append("/".join([*top, *filter(None, [name])]))
    places = [*found.folders, "/".join(top)]
    for name in draw(
        st.lists(st.sampled_from(["notes.txt", ".DS_Store", "._1.jpg", "README", "a.png.txt"]), max_size=3)
    ):
        found.others.append("/".join(filter(None, [draw(st.sampled_from(places)), name])))
    if draw(st.integers(0, 9)) == 0:
        found.images["/".join([*top, "loose.png"])] = number
    found.others = sorted(set(found.others))
    return found


def hidden(path: str) -> bool:
    return any(part[0] == "." or part == "__MACOSX" for part in path.split("/"))


def is_image(path: str) -> bool:
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    return bool(stem and dot) and extension.lower() in ("jpg", "jpeg", "jpe", "jfif", "png", "webp")


def labels_of(paths: list[str]) -> tuple[dict[str, int], list[str]] | None:
    """The label of every path, -1 for none, and the classes; None where there are images beside class folders."""
    parts = {path: path.split("/") for path in paths}
    depth = 0
    while all(len(p) > depth + 1 for p in parts.values()) and len({p[depth] for p in parts.values()}) == 1:
        depth += 1
    flat = [len(p) == depth + 1 for p in parts.values()]
    if all(flat):
        return dict.fromkeys(paths, -1), []
    if any(flat):
        return None
    classes = sorted({p[depth] for p in parts.values()})
    for _ in classes:  # numbers by value: exchanges neighbours that differ first in a number
        for i in range(len(classes) - 1):
            if by_value(classes[i], classes[i + 1]):
                classes[i : i + 2] = classes[i + 1], classes[i]
    return {path: classes.index(p[depth]) for path, p in parts.items()}, classes


def by_value(one: str, other: str) -> bool:
    """Whether ``one``, which sorts before ``other`` as text, has a larger number at the place where they differ."""
    for x, y in zip(re.findall("[0-9]+|[^0-9]", one), re.findall("[0-9]+|[^0-9]", other), strict=False):
        if x.isascii() and y.isascii() and x.isdigit() and y.isdigit() and int(x) != int(y):
            return int(x) > int(y)
        if x != y and not (x.isdigit() and y.isdigit()):
            return False
    return False


def expected(source: Source) -> tuple[Content, list[str]] | str:
    """What shards of it hold and the classes; or a part of the message with which it is refused."""
    paths = [path for path in source.images if not hidden(path)]
    if not paths:
        return "holds no images"
    found = labels_of(paths)
    if found is None:
        return "beside its class folders"
    labels, classes = found
    if len({unicodedata.normalize("NFC", name) for name in classes}) < len(classes):
        return "Unicode forms"
    return Counter((pixels_of(source.images[path]), labels[path]) for path in paths), classes


def check_packed(source: Source, packed_from: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> PackReport | None:
    """Packs it: all that there is comes out, with its label, or is counted, or is refused for the reason expected."""
    wanted = expected(source)
    if isinstance(wanted, str):
        event(f"refused: {wanted}")
        with pytest.raises(InputError, match=re.escape(wanted)) as refusal:
            pack(str(packed_from), str(out), shard_samples=3)
        assert str(packed_from) in str(refusal.value)
        return None
    content, classes = wanted
    report = pack(str(packed_from), str(out), shard_samples=3)
    event(f"{len(classes)} classes")
    assert report.classes == classes
    assert report.images == content.total()
    files = [*source.images, *source.others]
    assert report.hidden == sum(map(hidden, files))
    assert report.images + report.hidden + report.others == len(files)
    assert read_all(out) == content
    printed = check_commands(out, report.images, capsys)
    assert ("classes" in printed) == bool(classes)
    return report


def write_folder(source: Source, top: Path, linked: set[str]) -> None:
    """Lays it out on a disk, the folders ``linked`` elsewhere with a link in their place."""
    for folder in sorted(source.folders):
        place = top / folder
        if folder in linked and not place.exists():
            target = top.parent / "elsewhere" / str(len(list(top.parent.glob("elsewhere/*"))))
            target.mkdir(parents=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target, target_is_directory=True)
        place.mkdir(parents=True, exist_ok=True)
    for path, number in source.images.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(image(number))
    for path in source.others:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"text")


def check_folder(source: Source, links: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary) / "in"
        top.mkdir()
        linked = {folder for folder in source.folders if folder and not hidden(folder) and links.random() < 0.4}
        write_folder(source, top, linked)
        loops = [f"{folder}/loop".lstrip("/") for folder in source.folders if links.random() < 0.3]
        for loop in loops:
            (top / loop).symlink_to(links.choice([top, (top / loop).parent, top.parent]))
        assume(source.images or source.others or loops)
        counted = Source(source.images, [*source.others, *filter(hidden, loops)])
        report = check_packed(counted, top, Path(temporary) / "out", capsys)
        assert report is None or report.returning == sorted(loop for loop in loops if not hidden(loop))


def check_zip(source: Source, changes: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in a zip, whose parts of names are divided in one way or another."""
    flat = Source(*({part.replace("\\", "_"): number for part, number in source.images.items()}, [], []))
    assume(len(flat.images) == len(source.images))
    flat.others = sorted({name.replace("\\", "_") for name in source.others} - set(flat.images))
    assume(flat.images)
    divider, before = changes.choice([("/", ""), ("\\", ""), ("/", "./"), ("/", "/"), ("\\", ".\\"), ("/", "a/../")])
    files: list[tuple[str, bytes]] = [(path, image(number)) for path, number in flat.images.items()]
    files += [(path, b"text") for path in flat.others]
    changes.shuffle(files)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / changes.choice(["in.zip", "IN.ZIP", "[in].zip"])
        packing = changes.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        path.write_bytes(changes.choice([b"", b"#!/bin/sh\nexit\n" * 9]))
        with zipfile.ZipFile(path, "a", packing) as archive:
            for name, data in files:
                archive.writestr(before + name.replace("/", divider), data)
        check_packed(flat, path, Path(temporary) / "out", capsys)


@given(source=sources(), seed=st.integers(0, 2**32))
@QUICK
def test_folders(source: Source, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    check_folder(source, random.Random(seed), capsys)


@given(source=sources(), seed=st.integers(0, 2**32))
@QUICK
def test_zips(source: Source, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    check_zip(source, random.Random(seed), capsys)


@pytest.mark.long
@given(source=sources(), seed=st.integers(0, 2**32))
@THOROUGH
def test_many_folders(source: Source, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    check_folder(source, random.Random(seed), capsys)


@pytest.mark.long
@given(source=sources(), seed=st.integers(0, 2**32))
@THOROUGH
def test_many_zips(source: Source, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    check_zip(source, random.Random(seed), capsys)


# -- tars made elsewhere ---------------------------------------------------------------------------

LABELS = {b"0": 0, b"7\n": 7, b" 3 ": 3, b"+4": 4, b"007": 7, b"-2": -2, b"18446744073709551615": -1, b"9" * 64: -1}
"""What is written, and the label that a batch has of it: none where it is too large for one."""

Member = tuple[str, bytes]


@dataclass
class Joined:
    """Tars to be joined into one file: members, format, and blocks of zeros behind each."""

    tars: list[tuple[list[Member], int, int]] = field(default_factory=list)
    content: Content = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)


@st.composite
def joined_tars(draw: st.DrawFn) -> Joined:
    """Images in any order, each with a label before or behind it or without one, and other members."""
    found, number = Joined(), 0
    folders = st.sampled_from(["", "./", "a/", "v1.0/b/", "a\\", "caf\udce9/", "日/", "x" * 120 + "/"])
    for _ in range(draw(st.integers(1, 4))):
        members: list[Member] = []
        for _ in range(draw(st.integers(0, 4))):
            key = f"{draw(folders)}{number}"
            members.append((f"{key}.{draw(st.sampled_from(EXTENSIONS))}", image(number)))
            text = draw(st.sampled_from([None, *LABELS]))
            if text is not None:
                members.append((f"{key}.{draw(st.sampled_from(['cls', 'cls', 'CLS']))}", text))
            found.content[pixels_of(number), -1 if text is None else LABELS[text]] += 1
            for extension in draw(st.lists(st.sampled_from(["xml", "seg.png", "json"]), max_size=2, unique=True)):
                members.append((f"{key}.{extension}", b"{}"))
                found.others[f".{extension}"] += extension != "json"
            number += 1
        for name in draw(st.lists(st.sampled_from(["README", "x/._a.jpg", ".hidden.png"]), max_size=1)):
            members.append((name, b"text"))
            found.others["without a key"] += 1
        format = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        padding = draw(st.sampled_from([2, 3, 20, 21, 64, 2048]))
        found.tars.append((draw(st.permutations(members)), format, padding))
    last = max((number for number, (members, *_) in enumerate(found.tars) if members), default=0)
    found.others[JOINED] = sum(bool(members) for members, *_ in found.tars[1:])
    found.others[ZEROS] = sum(padding for *_, padding in found.tars[last:]) // 2049
    return found


def tar_bytes(members: list[Member], format: int, padding: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return buffer.getvalue()[:end] + bytes(padding * tarfile.BLOCKSIZE)


def check_tar(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    assume(joined.content and joined.tars[0][0])
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data [v2]"
        data.mkdir()
        (data / "x.tar").write_bytes(b"".join(tar_bytes(*tar) for tar in joined.tars))
        event(f"{len(joined.tars)} tars")
        for indexed in (False, True):
            index = index_shards(str(data)) if indexed else build_index(str(data)).shards
            assert dict(index[0].others) == {kind: count for kind, count in joined.others.items() if count}
            assert read_all(data) == joined.content
            printed = check_commands(data, joined.content.total(), capsys)
            assert ("joined" in printed) == bool(joined.others[JOINED])


@given(joined=joined_tars())
@QUICK
def test_tars(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    check_tar(joined, capsys)


@pytest.mark.long
@given(joined=joined_tars())
@THOROUGH
def test_many_tars(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    check_tar(joined, capsys)


@pytest.mark.parametrize("kind", ["zip", "tar", pytest.param("folder", marks=pytest.mark.long)])
def test_training_on_what_is_odd(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "p{x} [v2]"
    source = Source({f"./{number % 3}/{number}.jfif": number for number in range(12)}, [], [])
    if kind == "tar":
        data.mkdir()
        tars = [[(f"{n}.png", image(n)), (f"{n}.cls", str(n % 3).encode())] for n in range(12)]
        (data / "x.tar").write_bytes(b"".join(tar_bytes(members, tarfile.GNU_FORMAT, 64) for members in tars))
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for name, number in source.images.items():
                archive.writestr(name.replace("/", "\\"), image(number))
        assert run_command(capsys, "shards", "pack", tmp_path / "in.zip", data).code == 0
    else:
        source.folders = ["0", "1", "2"]
        write_folder(source, tmp_path / "in.zip", {"0", "1", "2"})
        assert run_command(capsys, "shards", "pack", tmp_path / "in.zip", data).code == 0
    assert read_all(data) == Counter((pixels_of(number), number % 3) for number in range(12))
    run = tmp_path / "run"
    told = run_command(
        capsys, "train", "smoke", f"data={data}", f"run={run}", "executor=inline", "max_steps=1", "classes=3"
    )
    assert told.code == 0, told.err
