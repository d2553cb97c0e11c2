"""Folders and zips of images that are laid out in odd ways: links, names, damage. Nothing is passed over unsaid."""

from __future__ import annotations

import os
import random
import re
import struct
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.data.image_folders import is_zip, list_images, natural_key, open_images
from cluster.data.packing import pack
from cluster.data.shard_index import build_index, index_shards
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from tests.support.commands import refused, run_command
from tests.support.shards import EXPECTED, fill_source, image_bytes, make_file, packed_images, upload, write_tar, zip_of

Capsys = pytest.CaptureFixture[str]


def numbered(label: int, number: int) -> bytes:
    return image_bytes(100 * label + number)


def write_zip(path: Path, names: list[str | zipfile.ZipInfo], packing: int = zipfile.ZIP_STORED) -> Path:
    """Image ``i`` under the i-th name."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, image_bytes(number))
    return path


def listed(source: Path) -> list[str]:
    with open_images(str(source)) as files:
        return list_images(files).images


# -- classes ---------------------------------------------------------------------------------------


def test_numbers_are_in_the_order_of_their_values(tmp_path: Path, capsys: Capsys) -> None:
    for label in range(12):
        make_file(tmp_path / "in" / str(label) / "x.jpg", image_bytes(label))
    told = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out")
    mapping = "0=0, 1=1, 2=2, 3=3, 4=4, 5=5, 6=6, 7=7, 8=8, 9=9, 10=10, 11=11"
    assert f"classes: {mapping}\n" in told.out
    assert packed_images(str(tmp_path / "out")) == {(image_bytes(label), label) for label in range(12)}
    assert build_index(str(tmp_path / "out")).class_names == tuple(map(str, range(12)))
    assert re.search(rf"classes +{mapping} *\n", run_command(capsys, "shards", "info", tmp_path / "out").out)


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10", "11", "20"],
        ["a2b", "a10b", "a10c"],
        ["x9y1", "x9y10", "x10y1"],
        ["Cat", "Dog", "cat", "dog"],
        ["-1", "0", "1", "a"],
        ["a ", "a1", "aa", "é"],
        ["001", "01", "1", "2"],
        ["9" * 5000, "1" + "0" * 5000],
        ["\u06610", "\u0662"],
        ["v1.2", "v1.10"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    shuffled = names[:]
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == names


def test_labels_that_are_stored_stay(tmp_path: Path) -> None:
    """Shards that were packed when "10" came before "2" mean what their index says."""
    for label in range(12):
        make_file(tmp_path / "in" / str(label) / "x.jpg", image_bytes(label))
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    path = tmp_path / "out" / "index.json"
    path.write_text(path.read_text().replace('"1","2","3"', '"1","10","11","2","3"').replace(',"10","11"]', "]"))
    index_shards(str(tmp_path / "out"))
    assert build_index(str(tmp_path / "out")).class_names[:4] == ("0", "1", "10", "11")


def test_many_classes_are_cut_short(tmp_path: Path, capsys: Capsys) -> None:
    for label in range(60):
        make_file(tmp_path / "in" / f"c{label}" / "x.jpg", image_bytes(1))
    told = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out").out
    assert "49=c49 and 10 more (`freqgan shards info` prints all)\n" in told
    assert "59=c59" in " ".join(run_command(capsys, "shards", "info", tmp_path / "out").out.split())


def test_names_of_classes_are_printed_as_they_are(tmp_path: Path, capsys: Capsys) -> None:
    names = ["[v2]", "[bold]", "cats ", "a,b", "x\ny", "\x1b[31m", "caf\udce9", ":smile:"]
    for name in names:
        make_file(tmp_path / "in" / name / "x.jpg", image_bytes(1))
    told = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out")
    expected = r"classes: 0=\x1b[31m, 1=:smile:, 2=[bold], 3=[v2], 4='a,b', 5=caf\udce9, 6='cats ', 7=x\ny"
    assert expected in told.out
    assert expected[9:].replace("cats ", "") in run_command(capsys, "shards", "info", tmp_path / "out").out.replace(
        "cats ", ""
    )


def test_one_name_in_two_unicode_forms(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        make_file(tmp_path / "in" / unicodedata.normalize(form, "café") / "x.jpg", image_bytes(1))
    make_file(tmp_path / "in" / "tea" / "x.jpg", image_bytes(1))
    with pytest.raises(
        InputError, match=r"two class folders called .*'cafe\\u0301' and 'caf\\xe9'.* Unicode forms: put"
    ):
        pack(str(tmp_path / "in"), str(tmp_path / "out"))


def test_upper_and_lower_case_are_two_classes(tmp_path: Path) -> None:
    for name in ("A", "a"):
        make_file(tmp_path / "in" / name / "x.jpg", image_bytes(ord(name)))
    assert pack(str(tmp_path / "in"), str(tmp_path / "out")).classes == ["A", "a"]


def test_folders_without_images_are_told(tmp_path: Path, capsys: Capsys) -> None:
    source = fill_source(tmp_path / "in")
    (source / "owl").mkdir()
    (source / "cat" / "deep" / "er").mkdir(parents=True)
    make_file(source / "notes" / "a" / "x.txt")
    make_file(source / ".git" / "HEAD")
    report = pack(str(source), str(tmp_path / "out"))
    assert report.empty == ["cat/deep", "notes", "owl"]
    told = run_command(capsys, "shards", "pack", source, tmp_path / "out2").out
    assert "without images: cat/deep, notes, owl\n" in told
    assert pack(str(zip_of(source, tmp_path / "x.zip")), str(tmp_path / "out3")).empty == report.empty


def test_labels_with_two_names_are_refused_where_they_are_used(tmp_path: Path, capsys: Capsys) -> None:
    for number, names in enumerate((("cat", "dog"), ("cat", "owl"), ("cat", "dog", "eel"))):
        pack(str(fill_source(tmp_path / f"in{number}", names, 3)), str(tmp_path / "data" / str(number)))
    train = ("train", "smoke", "executor=inline", "max_steps=1")
    data = f"{tmp_path}/data/{{0,1}}/*.tar"
    message = refused(run_command(capsys, *train, f"data={data}", f"run={tmp_path}/run", "classes=2"))
    assert re.match(r"classes: label 1 is 'dog' in .*/data/0, 'owl' in .*/data/1; set classes=0", message)
    told = run_command(capsys, "shards", "info", data).out
    assert re.search(r"0=cat, 1=dog in .*0=cat, 1=owl in ", told, re.DOTALL)
    both = build_index(f"{tmp_path}/data/{{0,2}}/*.tar")
    assert both.ambiguous_label is None
    assert both.class_names == ("cat", "dog", "eel")


# -- links -----------------------------------------------------------------------------------------


def test_class_folders_that_are_links(tmp_path: Path) -> None:
    elsewhere = fill_source(tmp_path / "elsewhere")
    (tmp_path / "in").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).symlink_to(elsewhere / name)
    assert pack(str(tmp_path / "in"), str(tmp_path / "out")).classes == ["cat", "dog"]
    assert packed_images(str(tmp_path / "out")) == EXPECTED


def test_images_that_are_links(tmp_path: Path) -> None:
    elsewhere = fill_source(tmp_path / "elsewhere")
    for file in sorted(elsewhere.rglob("*.*")):
        link = tmp_path / "in" / file.relative_to(elsewhere)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file, link.parent))
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    assert packed_images(str(tmp_path / "out")) == EXPECTED


def test_two_classes_may_be_links_to_one_folder(tmp_path: Path) -> None:
    make_file(tmp_path / "elsewhere" / "deep" / "x.jpg", image_bytes(1))
    (tmp_path / "in").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    assert packed_images(str(tmp_path / "out")) == {(image_bytes(1), 0), (image_bytes(1), 1)}


@pytest.mark.timeout(60)
def test_links_that_lead_round_end_and_are_told(tmp_path: Path, capsys: Capsys) -> None:
    source = fill_source(tmp_path / "in")
    others = tmp_path / "others"
    for name in "abcdefghijkl":  # every way through these is one of 12!
        make_file(others / name / f"{name}.jpg", image_bytes(ord(name)))
    for name in "abcdefghijkl":
        for other in "abcdefghijkl":
            (others / name / f"to-{other}").symlink_to(others / other)
    (source / "cat" / "up").symlink_to("..")
    (source / "cat" / "out").symlink_to(tmp_path)
    (source / "cat" / "dog").symlink_to("../dog")
    (source / "dog" / "self").symlink_to(".")
    (source / "dog" / "others").symlink_to(others / "a")
    report = pack(str(source), str(tmp_path / "out"))
    assert report.images == 24
    assert {"cat/up", "cat/out", "cat/dog", "dog/self"} <= set(report.returning)
    told = run_command(capsys, "shards", "pack", source, tmp_path / "out2").out
    assert re.search(r"passed over: cat/dog, cat/out, cat/up, .* more \(back to folders that are packed anyway\)", told)


@pytest.mark.parametrize(("name", "target"), [("owl", "/nowhere/owl"), ("cat/7.jpg", "gone.jpg"), ("eel", "eel")])
def test_links_that_lead_nowhere_are_refused(tmp_path: Path, name: str, target: str) -> None:
    source = fill_source(tmp_path / "in")
    (source / name).symlink_to(target)
    with pytest.raises(InputError, match=rf"{name} in .*/in is a link to {target}, which cannot be followed: put what"):
        pack(str(source), str(tmp_path / "out"))
    (source / name).rename(source / ".hidden")
    assert pack(str(source), str(tmp_path / "out")).hidden == 1


def test_a_folder_of_broken_links_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).symlink_to(f"/nowhere/{name}")
    with pytest.raises(InputError, match=r"cat in .* is a link to /nowhere/cat, .* \(so are 1 more\)"):
        pack(str(tmp_path / "in"), str(tmp_path / "out"))


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    source = fill_source(tmp_path / "in")
    os.mkfifo(source / "cat" / "notes.txt")
    assert pack(str(source), str(tmp_path / "out")).others == 1
    os.mkfifo(source / "cat" / "pipe.jpg")
    with pytest.raises(InputError, match=r"cat/pipe\.jpg in .*/in is no file but a pipe, socket or device: remove it"):
        pack(str(source), str(tmp_path / "out2"))


def test_names_that_are_no_utf8(tmp_path: Path, capsys: Capsys) -> None:
    make_file(tmp_path / "in" / "caf\udce9" / "\udcff.jpg", image_bytes(1))
    make_file(tmp_path / "in" / "tea" / "x.jpg", image_bytes(2))
    assert pack(str(tmp_path / "in"), str(tmp_path / "out")).classes == ["caf\udce9", "tea"]
    make_file(tmp_path / "in" / "caf\udce9" / "\udcfe.jpg", image_bytes(2)[:-30])
    message = refused(run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out2"))
    assert "caf\\udce9/\\udcfe.jpg in" in message.encode(errors="backslashreplace").decode()


# -- zips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["cat\\1.jpg", "dog\\1.jpg"], ["cat", "dog"]),
        (["C:\\data\\cat\\1.jpg", "C:\\data\\dog\\1.jpg"], ["cat", "dog"]),
        (["top/cat\\1.jpg", "top/dog\\1.jpg"], ["cat", "dog"]),
        (["./cat/1.jpg", "./dog/1.jpg"], ["cat", "dog"]),
        ([".\\cat\\1.jpg", ".\\dog\\1.jpg"], ["cat", "dog"]),
        (["/cat/1.jpg", "/dog/1.jpg"], ["cat", "dog"]),
        (["../cat/1.jpg", "../dog/1.jpg"], ["cat", "dog"]),
        (["a/../cat/1.jpg", "b/../dog/1.jpg"], ["cat", "dog"]),
        (["cat//1.jpg", "dog/./1.jpg"], ["cat", "dog"]),
        (["v1.0/1.jpg", "v1.1/1.jpg"], ["v1.0", "v1.1"]),
        (["cat /1.jpg", "cat/1.jpg"], ["cat", "cat "]),
        (["café\\1.jpg", "日\\1.jpg"], ["café", "日"]),
        (["1.jpg", "2.jpg"], []),
        (["./1.jpg", "2.jpg"], []),
    ],
)
def test_names_in_zips(tmp_path: Path, names: list[str], classes: list[str], capsys: Capsys) -> None:
    path = write_zip(tmp_path / "x.zip", [*names])
    report = pack(str(path), str(tmp_path / "out"))
    assert (report.classes, report.images, report.hidden, report.others) == (classes, 2, 0, 0)
    order = (
        sorted(names, key=lambda name: classes.index("cat " if "cat /" in name else "cat"))
        if "cat /1.jpg" in names
        else names
    )
    labels = [order.index(name) if classes else None for name in names]
    assert packed_images(str(tmp_path / "out")) == {(image_bytes(number), label) for number, label in enumerate(labels)}


def test_half_a_letter_is_no_separator(tmp_path: Path) -> None:
    """The second byte of some letters of Shift-JIS is a backslash; old zips do not say in what names are written."""
    names = [f"{folder}/表{number}ソ.jpg".encode("shift-jis") for folder in "ab" for number in "12"]
    written = [f"{folder}/XX{number}YY.jpg" for folder in "ab" for number in "12"]
    path = write_zip(tmp_path / "x.zip", [*written])
    data = path.read_bytes()
    for name, placeholder in zip(names, written, strict=True):
        assert b"\\" in name
        data = data.replace(placeholder.encode(), name)
    path.write_bytes(data)
    report = pack(str(path), str(tmp_path / "out"))
    assert (report.classes, report.images, report.hidden) == (["a", "b"], 4, 0)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["cat/1.jpg", "./cat/1.jpg", "cat\\1.jpg"])
def test_two_images_of_one_name(tmp_path: Path, second: str) -> None:
    path = write_zip(tmp_path / "x.zip", ["cat/1.jpg", "dog/1.jpg", second])
    with pytest.raises(InputError, match=r"x\.zip holds 2 files called cat/1\.jpg: rename them and zip again"):
        pack(str(path), str(tmp_path / "out"))


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("owl")
    link.external_attr = 0o120777 << 16
    with pytest.raises(
        InputError, match=r"owl in .*x\.zip is a link to a file of another name, which cannot be followed"
    ):
        pack(str(write_zip(tmp_path / "x.zip", ["cat/1.jpg", "dog/1.jpg", link])), str(tmp_path / "out"))


def test_a_name_that_is_said_to_be_utf8_and_is_not(tmp_path: Path, capsys: Capsys) -> None:
    path = write_zip(tmp_path / "x.zip", ["cat/é.jpg", "dog/1.jpg"])
    data = path.read_bytes()
    for changed in (data.replace("é".encode(), b"\xe9."), data.replace("é".encode(), b"\xe9.", 1)):
        path.write_bytes(changed)
        message = refused(run_command(capsys, "shards", "pack", path, tmp_path / "out"))
        assert "x.zip" in message
        assert "b'cat/\\xe9..jpg'" in message or "cat/é.jpg in" in message
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [0x1, 0x20, 0x40])
def test_encrypted_zips(tmp_path: Path, flag: int) -> None:
    path = write_zip(tmp_path / "x.zip", ["1.jpg"])
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\1\2")
    data[directory + 8] |= flag
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"1\.jpg in .*x\.zip cannot be unzipped \(.*\): make the zip again"):
        pack(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\nexec unzip\n", b"PK\5\6" * 30, b"MZ" + bytes(5000)])
@pytest.mark.parametrize("zip64", [False, True])
def test_zips_with_a_program_before_them(tmp_path: Path, before: bytes, zip64: bool) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(3):
            with archive.open(f"{number}.jpg", "w", force_zip64=zip64) as file:
                file.write(image_bytes(number))
    (tmp_path / "x.zip").write_bytes(before + (tmp_path / "x.zip").read_bytes())
    assert pack(str(tmp_path / "x.zip"), str(tmp_path / "out")).images == 3


@pytest.mark.parametrize("comment", [b"", b"a comment"])
def test_joined_zips_are_not_read_in_part(tmp_path: Path, comment: bytes) -> None:
    parts = []
    for number in range(2):
        path = write_zip(tmp_path / f"{number}.zip", [f"{number}.jpg"])
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
        parts.append(path.read_bytes())
    (tmp_path / "x.zip").write_bytes(b"".join(parts))
    with pytest.raises(
        InputError, match=r"x\.zip is several zips, joined, and only the last would be read: unpack each"
    ):
        pack(str(tmp_path / "x.zip"), str(tmp_path / "out"))


def test_the_last_part_of_a_split_zip(tmp_path: Path) -> None:
    data = bytearray(write_zip(tmp_path / "x.zip", ["1.jpg", "2.jpg"]).read_bytes())
    end = data.index(b"PK\5\6")
    struct.pack_into("<2H", data, end + 4, 1, 1)
    (tmp_path / "x.zip").write_bytes(data[600:])
    with pytest.raises(InputError, match=r"x\.zip"):
        pack(str(tmp_path / "x.zip"), str(tmp_path / "out"))


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zips_are_refused_or_whole(tmp_path: Path, packing: int) -> None:
    """Whatever byte is changed and wherever it is cut: no image is lost or changed without a word."""
    names: list[str | zipfile.ZipInfo] = ["cat/é.jpg", "cat/2.jpg", "dog/3.jpg"]
    path = write_zip(tmp_path / "x.zip", names, packing)
    data, rng = path.read_bytes(), random.Random(packing)
    right = {image_bytes(number) for number in range(3)}
    directory = data.index(b"PK\1\2")
    places = [*range(0, 60), *range(directory, len(data)), *rng.sample(range(len(data)), 40)]
    changed = [data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] for place in places]
    for damaged in [*changed, *(data[: rng.randrange(len(data))] for _ in range(20))]:
        path.write_bytes(damaged)
        with suppress(InputError), open_images(str(path)) as files:
            listing = list_images(files)
            assert {files.read(name) for name in listing.images} <= right
            assert len(listing.images) + listing.others + listing.hidden == 3


def test_a_folder_called_as_a_zip(tmp_path: Path, s3_server: str, capsys: Capsys) -> None:
    source = fill_source(tmp_path / "x.zip")
    bucket = upload(tmp_path)
    assert not is_zip(str(source))
    assert not is_zip(f"{bucket}/x.zip")
    for number, place in enumerate((source, f"{source}/", f"{bucket}/x.zip")):
        assert pack(str(place), str(tmp_path / f"out{number}")).classes == ["cat", "dog"]
        assert packed_images(str(tmp_path / f"out{number}")) == EXPECTED
    open_folder(bucket).write("y.zip", zip_of(source, tmp_path / "y.zip").read_bytes())
    assert is_zip(f"{bucket}/y.zip")
    assert run_command(capsys, "shards", "pack", tmp_path / "no.zip", tmp_path / "o").code == 2


def test_a_run_called_as_a_zip_is_a_run(tmp_path: Path, capsys: Capsys) -> None:
    """Neither is a folder of images; the message is that of a folder."""
    write_tar(tmp_path / "data" / "x.tar", {f"{number}.jpg": image_bytes(number) for number in range(130)})
    (tmp_path / "run.zip").mkdir()
    make_file(tmp_path / "run.zip" / "notes.txt")
    message = refused(run_command(capsys, "evaluate", tmp_path / "run.zip", "--data", tmp_path / "data"))
    assert "run.zip holds no images" in message
