from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from webdataset.tariterators import base_plus_ext

from cluster.data.packing import PackReport, pack
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import Sample, find_shards, read_shard, split_extension
from cluster.data.targets import NO_LABEL
from cluster.run.data_source import open_source
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from tests.support.commands import refused, run_command
from tests.support.runs import tiny_run_settings
from tests.support.s3_server import BUCKET
from tests.support.shards import (
    EXPECTED,
    SHARED_CIFAR10,
    fill_source,
    image_bytes,
    make_file,
    packed_images,
    shard_members,
    upload,
    write_tar,
    zip_of,
)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / "data" / f"train-{number:05d}.tar", shard_members(10 * number, 4))
    write_tar(tmp_path / "data" / "test-00000.tar", shard_members(90, 2))
    (tmp_path / "data" / "notes.txt").write_text("x")
    return tmp_path / "data"


@pytest.fixture(params=["disk", "bucket"])
def shards_url(request: pytest.FixtureRequest, shards: Path) -> str:
    if request.param == "disk":
        return str(shards)
    request.getfixturevalue("s3_server")
    return upload(shards)


def test_find_shards(shards_url: str) -> None:
    train = [f"{shards_url}/train-{number:05d}.tar" for number in range(3)]
    assert find_shards(shards_url) == [f"{shards_url}/test-00000.tar", *train]
    assert find_shards(f"{shards_url}/train-*.tar") == train
    assert find_shards(f"{shards_url}/train-0000[02].tar") == [train[0], train[2]]
    assert find_shards(f"{shards_url}/train-{{00001..00002}}.tar") == train[1:]
    assert find_shards(f"{shards_url}/{{train-00001}}.tar") == train[1:2]
    assert find_shards(f"{shards_url}/{{train,test}}-{{00000..00000}}.tar") == [
        train[0],
        f"{shards_url}/test-00000.tar",
    ]
    assert find_shards(f"{shards_url}/{{train-00002,test-00000}}.tar") == [train[2], f"{shards_url}/test-00000.tar"]
    assert find_shards(f"{shards_url}/train-00001.tar") == train[1:2]
    assert find_shards(f"{shards_url}/{{train-*,train-00000}}.tar") == train
    parent, _, name = shards_url.rpartition("/")
    assert find_shards(f"{parent}/{name[:-1]}?/train-*.tar") == train


ODD_NAMES = ("out [v2]", "p{x}", "a*b?", "p{a,b}", "p{1..3}", "[!x]", "x.tar", "{", "[")
"""Of folders, and all but the last three are patterns."""


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_what_is_there_under_the_very_name_is_no_pattern(
    tmp_path: Path, place: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether or not there is an index, and though others are there that the pattern would match."""
    odd_names = ODD_NAMES[: 9 if place == "disk" else 2]  # requests take their time
    for number, folder in enumerate((*odd_names, "out v", "px", "pa", "p1", "aXbY", "y")):
        write_tar(tmp_path / folder / f"{number}.tar", {"1.jpg": image_bytes(number)})
        write_tar(tmp_path / folder / "t[1].tar", {"2.jpg": image_bytes(100 + number)})
    top = str(tmp_path)
    if place == "bucket":
        request.getfixturevalue("s3_server")
        top = upload(tmp_path)
    for indexed in (False, True):
        for number, folder in enumerate(odd_names):
            one, bracketed = f"{top}/{folder}/{number}.tar", f"{top}/{folder}/t[1].tar"
            if indexed:
                index_shards(f"{top}/{folder}")
            for data, urls in {
                f"{top}/{folder}": [one, bracketed],
                f"{top}/{folder}/": [one, bracketed],
                one: [one],
                bracketed: [bracketed],
                f"{top}/{folder}/*.tar": [one, bracketed],
                f"{top}/{folder}/{number}*": [one],
                f"{top}/{folder}/{{{number},t[1]}}.tar": [one, bracketed],
                f"{top}/{folder}/t[[]1].tar": [bracketed],
            }.items():
                assert find_shards(data) == urls, data
                assert [shard.url for shard in build_index(data).shards] == urls, data
    assert "2: 2 .jpg" in run_command(capsys, "shards", "info", f"{top}/out [v2]").out
    assert run_command(capsys, "shards", "verify", f"{top}/p{{x}}").out.strip() == "2 shards in order"
    open_folder(top).delete("out [v2]/index.json")
    assert "2 images in 2 shards" in run_command(capsys, "shards", "index", f"{top}/out [v2]").out
    assert open_folder(f"{top}/out [v2]").exists("index.json")


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_patterns_are_patterns_where_nothing_has_their_name(
    tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    for name in ("p1/a[1]/x.tar", "p2/a1/x.tar", "p2/a[1]/y.tar", "p3/x,y.tar"):
        write_tar(tmp_path / name, {"1.jpg": image_bytes(1)})
    top = str(tmp_path)
    if place == "bucket":
        request.getfixturevalue("s3_server")
        top = upload(tmp_path)
    for pattern, names in {
        "p[12]/a[1]/*.tar": ["p1/a[1]/x.tar", "p2/a[1]/y.tar"],
        "p{1..2}/a[1]/*.tar": ["p1/a[1]/x.tar", "p2/a[1]/y.tar"],
        "p{1,2}/a?/*.tar": ["p2/a1/x.tar"],
        "p{2/a1,1/a[1]}/x.tar": ["p2/a1/x.tar", "p1/a[1]/x.tar"],
        "p3/x,*": ["p3/x,y.tar"],
    }.items():
        if pattern == "p{1,2}/a?/*.tar":
            with pytest.raises(InputError, match=r"no shard matches .*p1/a\?"):
                find_shards(f"{top}/{pattern}")
            pattern = "p{2,2}/a?/*.tar"
        assert find_shards(f"{top}/{pattern}") == [f"{top}/{name}" for name in names], pattern
    long = ",".join(f"{number:0200d}" for number in range(20))
    with pytest.raises(InputError, match=r"no such shard: .*0000\.tar"):  # longer than any name may be
        find_shards(f"{top}/p3/{{{long}}}.tar")


def test_relative_paths(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards)
    assert find_shards("train-*.tar") == [f"{shards}/train-{number:05d}.tar" for number in range(3)]
    assert find_shards("train-00000.tar") == [f"{shards}/train-00000.tar"]
    assert len(find_shards(".")) == 4


def test_what_is_missing_is_said(shards_url: str) -> None:
    for data, message in {
        f"{shards_url}/nowhere": r"no \.tar shards in .*/nowhere; there is no folder .*freqgan shards pack SRC DST",
        f"{shards_url}/train-{{00002..00003}}.tar": r"no such shard: .*/train-00003\.tar; .* holds 4 \.tar, 1 \.txt",
        f"{shards_url}/val-*.tar": r"no shard matches .*/val-\*\.tar; .* holds 4 \.tar, 1 \.txt",
        f"{shards_url}/train-{{3..1}}.tar": r"\{3\.\.1\} in .* names no shard: write the lower number first",
    }.items():
        with pytest.raises(InputError, match=message):
            find_shards(data)


def test_a_folder_of_images_is_no_folder_of_shards(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(InputError, match=r"is empty; `freqgan shards pack"):
        find_shards(str(tmp_path / "cats"))
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number))
    with pytest.raises(InputError, match=r"no \.tar shards in .*; .* holds 3 \.jpg, 1 folders; `freqgan shards pack"):
        find_shards(str(tmp_path))
    with pytest.raises(InputError, match=r"0\.jpg is a file that does not end in \.tar; `freqgan shards pack"):
        find_shards(str(tmp_path / "0.jpg"))


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "a/b.cls",
        "a/b.c/d.seg.png",
        "./a.jpg",
        "a.b.c",
        "a",
        "a/b",
        ".hidden",
        "a.",
        "._a.jpg",
    ],
)
def test_keys_are_those_of_webdataset(name: str) -> None:
    assert (split_extension(name) or (None, None)) == base_plus_ext(name)


def test_hidden_files_have_no_key() -> None:
    """WebDataset gives "x/._a.jpg", a resource fork, the key "x/"; here it is none."""
    assert split_extension("x/._a.jpg") is None
    assert split_extension("x/.jpg") is None


def test_the_index_says_where_the_images_lie(shards_url: str) -> None:
    index = build_index(f"{shards_url}/train-*.tar")
    assert index.sample_count == 12
    for shard in index.shards:
        folder, name = open_folder(shards_url), shard.url.rpartition("/")[2]
        data = folder.read(name)
        assert shard.size_bytes == len(data)
        for sample in shard.samples:
            number = int(sample.key)
            assert sample.image_name == f"{number:04d}.jpg"
            assert data[sample.offset : sample.offset + sample.size_bytes] == image_bytes(number)
            assert sample.label == number % 3


def test_members_are_grouped_by_key(tmp_path: Path) -> None:
    members = {
        "a/1.JPEG": image_bytes(1),
        "a/2.cls": b" 7\n",
        "a/2.json": b"{}",
        "a/2.seg.png": image_bytes(9, "PNG"),
        "a/2.png": image_bytes(2, "PNG"),
        "3.webp": image_bytes(3, "WEBP"),
        "4.cls": b"5",
        "4.json": b"{}",
        "._3.jpg": b"resource fork",
        "README": b"x",
        "a/1.cls": b"-2",
    }
    (shard,) = build_index(str(write_tar(tmp_path / "x.tar", members))).shards
    assert [(s.key, s.image_name, s.label) for s in shard.samples] == [
        ("a/1", "a/1.JPEG", -2),
        ("a/2", "a/2.png", 7),
        ("3", "3.webp", None),
    ]
    assert [[member.extension for member in s.members] for s in shard.samples] == [[], ["json"], []]
    assert dict(shard.others) == {"without a key": 2, ".json": 1, ".seg.png": 1}


def test_links_and_devices_are_counted_and_not_followed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1)})
    with tarfile.open(path, "a") as tar:
        for name, kind, target in (
            ("2.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("3.jpg", tarfile.LNKTYPE, "1.jpg"),
            ("4.jpg", tarfile.CHRTYPE, ""),
            ("5.jpg", tarfile.FIFOTYPE, ""),
            ("folder", tarfile.DIRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    shard = read_shard(str(path))
    assert [sample.key for sample in shard.samples] == ["1"]
    assert dict(shard.others) == {"links, devices and sparse files": 4}


def test_others_are_in_the_index_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1), "1.xml": b"{}", "2.jpg": image_bytes(2), "2.xml": b"{}"})
    told = run_command(capsys, "shards", "index", tmp_path)
    assert "2 images in 1 shard" in told.out
    assert "passed over: 2 .xml" in told.out
    assert dict(build_index(str(tmp_path)).shards[0].others) == {".xml": 2}
    assert "2 .xml" in run_command(capsys, "shards", "info", tmp_path).out


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, format: int) -> None:
    name = "folder/" * 30 + "ü" * 60 + ".jpg"
    path = write_tar(tmp_path / "x.tar", {name: image_bytes(1)}, format)
    (sample,) = build_index(str(path)).shards[0].samples
    assert sample.image_name == name
    assert path.read_bytes()[sample.offset :][: sample.size_bytes] == image_bytes(1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.txt", b"x"), ("1.json", b"{}")], r"x\.tar has no images \(\.jpg, .*\) but 1 \.txt, 1 \.json: repack"),
        ([], r"x\.tar has no images .* but no such members"),
        ([("1.jpg", b"x"), ("1.cls", b"cat")], r"1\.cls in .*/x\.tar holds b'cat': a label is an integer"),
        ([("1.jpg", b"x"), ("1.cls", b"1.5")], r"1\.cls in .* holds b'1\.5': a label is an integer"),
        ([("1.jpg", b"x"), ("1.png", b"x")], r"x\.tar has two images of key 1, 1\.jpg and 1\.png: rename one"),
        ([("1.jpg", b"x"), ("1.jpg", b"x")], r"x\.tar has two images of key 1"),
    ],
)
def test_unusable_shards_are_named(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_index(str(write_tar(tmp_path / "x.tar", members)))


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x1f\x8b" + bytes(2000), os.urandom(5000)])
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tar is no uncompressed tar .*replace or remove it; `freqgan shards pack"):
        build_index(str(tmp_path / "x.tar"))


def test_every_cut_before_the_end_blocks_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {f"{number}.jpg": image_bytes(number, size=4) for number in range(3)})
    data = path.read_bytes()
    last = build_index(str(path)).shards[0].samples[-1]
    end = -(-(last.offset + last.size_bytes) // 512) * 512 + 1024
    for length in [*range(1, end, 61), end - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(
            InputError, match=r"x\.tar (is no uncompressed tar|of \d+ bytes is cut off .* at offset \d+)"
        ):
            build_index(str(path))
    path.write_bytes(data[:end])
    assert build_index(str(path)).sample_count == 3


def test_a_damaged_header_does_not_end_a_shard_quietly(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {f"{number}.jpg": image_bytes(number) for number in range(3)})
    second_header = build_index(str(path)).shards[0].samples[1].offset - 512
    data = bytearray(path.read_bytes())
    for offset in range(second_header, second_header + 512, 29):
        data[offset] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"is cut off or damaged at offset {second_header} "):
            build_index(str(path))
        data[offset] ^= 1


def joined(path: Path, count: int, padding: int) -> Path:
    """So many tars of one image each, so many blocks of zeros behind each, as `tar -b` and `cat` make them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in range(count):
        whole = write_tar(path.with_name("part"), {f"{number}.jpg": image_bytes(number), f"{number}.cls": b"1"})
        parts.append(whole.read_bytes().rstrip(b"\0"))
        parts.append(bytes(-len(parts[-1]) % 512 + padding * 512))
    path.with_name("part").unlink()
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("padding", [2, 3, 18, 20, 21, 23, 64, 128, 2048, 9000])
def test_joined_tars_are_all_read(tmp_path: Path, padding: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = joined(tmp_path / "data" / "ab.tar", 3, padding)
    shard = read_shard(str(path))
    assert [(sample.key, sample.label) for sample in shard.samples] == [("0", 1), ("1", 1), ("2", 1)]
    data = path.read_bytes()
    assert [data[s.offset : s.offset + s.size_bytes] for s in shard.samples] == [image_bytes(n) for n in range(3)]
    told = run_command(capsys, "shards", "info", path.parent)
    assert told.code == 0
    assert re.search(r"images +3: 3 \.jpg ", told.out)
    assert "2 more tars behind the first of a shard, read as well" in told.out
    assert ("4 MiB at the end of shards" in told.out) == (padding == 9000)
    assert "2 more tars behind" in run_command(capsys, "shards", "index", path.parent).out
    assert "2 more tars behind" in run_command(capsys, "shards", "info", path.parent).out


def test_joined_tars_in_a_bucket(tmp_path: Path, s3_server: str) -> None:
    joined(tmp_path / "data" / "ab.tar", 2, 20_000)
    assert build_index(upload(tmp_path / "data")).sample_count == 2


@pytest.mark.parametrize("distance", [0, 512, 10_239, 10_240, 11_264, 20_000, 3 * 2**20])
def test_what_follows_a_tar_and_is_none_is_told(tmp_path: Path, distance: int) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1)})
    whole = path.read_bytes()
    for rest in (b"x", image_bytes(2), bytes(700) + b"\1" + bytes(700), write_header("2.jpg", damaged=True)):
        path.write_bytes(whole + bytes(distance) + rest)
        with pytest.raises(InputError, match=r"x\.tar of \d+ bytes is cut off or damaged at offset \d+ \(data follows"):
            build_index(str(path))
    path.write_bytes(whole + bytes(distance) + write_header("2.jpg"))
    with pytest.raises(InputError, match=r"x\.tar of \d+ bytes is cut off or damaged"):
        build_index(str(path))


def write_header(name: str, *, damaged: bool = False) -> bytes:
    """Of a member of 600 bytes, of which none follow."""
    info = tarfile.TarInfo(name)
    info.size = 600
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[5] ^= damaged
    return bytes(header)


def test_damage_in_joined_tars_is_noticed(tmp_path: Path) -> None:
    """No flipped bit loses an image: none in the zeros behind a tar stays unnoticed, nor any cut within a tar."""
    path = joined(tmp_path / "x.tar", 3, 30)
    data = path.read_bytes()
    samples = read_shard(str(path)).samples
    starts = [sample.offset - 512 for sample in samples] + [len(data)]
    zeros = [range(start - 30 * 512, start) for start in starts[1:]]
    contents = [range(s.offset, s.offset + s.size_bytes) for s in samples]
    label = data.index(b"1", zeros[0].start - 512)
    contents += [range(label + start - starts[0], label + start - starts[0] + 1) for start in starts[:-1]]
    headers = [start + n for start in starts[1:-1] for n in range(0, 512, 7)]
    for offset in {*range(0, len(data), 97), *headers} - {offset for content in contents for offset in content}:
        changed = bytearray(data)
        changed[offset] ^= 4
        path.write_bytes(changed)
        with suppress(InputError):
            assert read_shard(str(path)).samples == samples, offset
            assert not any(offset in some for some in zeros), offset
    for length in range(1, len(data), 211):
        path.write_bytes(data[:length])
        if not any(some.start + 1024 <= length <= some.stop for some in zeros):
            with pytest.raises(InputError, match=r"x\.tar (is no uncompressed tar|of \d+ bytes is cut off)"):
                build_index(str(path))


@pytest.mark.parametrize("name", ["1.jfif", "1.JFIF", "1.jpe", "1.JPG", "1.Jpeg", "1.PNG", "1.WebP"])
def test_extensions_of_images(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "x.tar", {name: image_bytes(1)})
    assert build_index(str(tmp_path / "x.tar")).shards[0].samples[0].image_name == name
    make_file(tmp_path / "in" / name, image_bytes(1))
    assert pack(str(tmp_path / "in"), str(tmp_path / "out")).images == 1


@pytest.mark.parametrize(
    ("text", "label"),
    [(b"3", 3), (b" 3\r\n", 3), (b"+3", 3), (b"-1", -1), (b"007", 7), (b"0" * 63 + b"5", 5), (b"-0", 0),
     (b"18446744073709551615", 2**64 - 1), (b"9" * 64, int("9" * 64)), (b"-9223372036854775809", -(2**63) - 1)],
)  # fmt: skip
def test_labels_are_integers_of_any_size(tmp_path: Path, text: bytes, label: int) -> None:
    """One that no batch can hold is no reason to refuse images whose labels are not used."""
    write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1), "1.cls": text})
    index_shards(str(tmp_path))
    settings = tiny_run_settings(tmp_path / "run", tmp_path)
    source = open_source(settings)
    assert source.index.shards[0].samples[0].label == label
    with source.ingest() as ingest:
        fits = -(2**63) <= label < 2**63
        assert ingest.batch(0, 2).targets.tolist() == [label if fits else NO_LABEL] * 2
    if not 0 <= label < 8:
        with pytest.raises(InputError, match=rf"1\.jpg in .*x\.tar has label {label}; set classes=0 to ignore labels"):
            open_source(settings.model_copy(update={"classes": 8}))


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"1_0", b"3.0", b"1e3", b"0x1", b"one", b"1 2", b"--1", b"+", "٣".encode(), "３".encode(), b"3\0",
     b"\xef\xbb\xbf3", b"0" * 64 + b"5", b"9" * 5000, b"1" + b" " * 64 + b"2"],
)  # fmt: skip
def test_what_is_no_label_is_named(tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1), "1.cls": text})
    message = refused(run_command(capsys, "shards", "info", tmp_path))
    assert re.match(r"1\.cls in .*/x\.tar holds b.*: a label is an integer written as text; write it so", message)


def test_a_label_too_large_for_a_batch_trains_without_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {f"{n}.jpg": image_bytes(n, size=16) for n in range(8)} | {f"{n}.cls": b"1" for n in range(8)}
    members["3.cls"] = b"18446744073709551615"
    write_tar(tmp_path / "d" / "x.tar", members)
    train = ("train", "smoke", f"data={tmp_path}/d", "executor=inline", "max_steps=1", f"run={tmp_path}/run")
    assert "3.jpg in" in refused(run_command(capsys, *train, "classes=2"))
    assert run_command(capsys, *train, "classes=0").code == 0


def test_two_labels_of_an_image(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("1.cls", b"1"), ("1.jpg", image_bytes(1)), ("1.CLS", b"1")])
    assert build_index(str(tmp_path)).shards[0].samples[0].label == 1
    write_tar(tmp_path / "x.tar", [("1.cls", b"1"), ("1.jpg", image_bytes(1)), ("1.CLS", b"2")])
    with pytest.raises(InputError, match=r"x\.tar has two labels of key 1, 1 and 2: remove one"):
        build_index(str(tmp_path))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    members = {"1.jpg": image_bytes(1), "1.pkl": trap, "1.pyd": trap, "1.pth": trap}
    assert build_index(str(write_tar(tmp_path / "x.tar", members))).sample_count == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED_CIFAR10.is_dir(), reason="the images of ../shared/data are not here")
def test_cifar10() -> None:
    index = build_index(str(SHARED_CIFAR10 / "train-*.tar"))
    assert len(index.shards) == 20
    labels = [sample.label for shard in index.shards for sample in shard.samples]
    assert {label: labels.count(label) for label in set(labels)} == dict.fromkeys(range(10), 5000)


# Packing


def contents(url: str) -> dict[str, bytes]:
    folder = open_folder(url)
    return {name: folder.read(name) for name in folder.list()}


def test_pack_a_folder(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = pack(
        str(fill_source(tmp_path / "in")),
        str(tmp_path / "out"),
        shard_samples=5,
        progress=lambda done, total: seen.append((done, total)),
    )
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert report == PackReport(12, 3, size_bytes, ["cat", "dog"], 0, 0, files=12)
    assert seen == [(number + 1, 12) for number in range(12)]
    assert packed_images(str(tmp_path / "out")) == EXPECTED
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["classes"] == ["cat", "dog"]
    assert [entry["samples"] for entry in index["shards"]] == [5, 5, 2]
    for number, entry in enumerate(index["shards"]):
        data = (tmp_path / "out" / entry["shard"]).read_bytes()
        assert entry["shard"] == f"shard-{number:05d}.tar"
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sorted(os.listdir(tmp_path / "out")) == ["index.json", *(f"shard-{n:05d}.tar" for n in range(3))]


def test_equal_images_give_equal_shards_from_everywhere(tmp_path: Path, s3_server: str) -> None:
    source = fill_source(tmp_path / "in")
    (tmp_path / "zip").mkdir()
    archive = zip_of(source, tmp_path / "zip" / "in.zip")
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    sources = [str(source), str(archive), upload(source), upload(archive.parent) + "/in.zip"]
    packed = []
    for number, place in enumerate(sources):
        for destination in (str(tmp_path / f"out{number}%d"), f"{bucket}/{number}"):
            pack(place, destination, shard_samples=4)
            packed.append(contents(destination))
    assert sorted(packed[0]) == ["index.json", "shard-00000.tar", "shard-00001.tar", "shard-00002.tar"]
    assert all(each == packed[0] for each in packed)


def test_classes_mix_across_shards(tmp_path: Path) -> None:
    pack(str(fill_source(tmp_path / "in", count=12)), str(tmp_path / "out"), shard_samples=8)
    for shard in build_index(str(tmp_path / "out")).shards:
        assert {sample.label for sample in shard.samples} == {0, 1}


def test_shards_end_at_their_size(tmp_path: Path) -> None:
    report = pack(str(fill_source(tmp_path / "in")), str(tmp_path / "out"), shard_size_bytes=700)
    index = build_index(str(tmp_path / "out"))
    assert report.shards == len(index.shards) > 2
    for shard in index.shards[:-1]:
        sizes = [sample.size_bytes + 1 for sample in shard.samples]
        assert sum(sizes) >= 700 > sum(sizes[:-1])


def test_no_sub_folders_means_no_labels(tmp_path: Path) -> None:
    source = fill_source(tmp_path / "in", classes=("all",))
    report = pack(str(source / "all"), str(tmp_path / "out"))
    assert report.classes == []
    assert {label for _, label in packed_images(str(tmp_path / "out"))} == {None}


def test_a_zip_with_everything_in_one_folder(tmp_path: Path) -> None:
    archive = zip_of(fill_source(tmp_path / "in"), tmp_path / "in.zip", inside="dataset/images/")
    assert pack(str(archive), str(tmp_path / "out")).classes == ["cat", "dog"]
    assert packed_images(str(tmp_path / "out")) == EXPECTED


def test_hidden_and_other_files_are_counted(tmp_path: Path) -> None:
    source = fill_source(tmp_path / "in")
    for name in (".DS_Store", "cat/._0.jpeg", "__MACOSX/cat/x.jpg", ".git/x.png", "labels.csv", "cat/README"):
        make_file(source / name, b"x")
    report = pack(str(source), str(tmp_path / "out"))
    assert (report.images, report.hidden, report.others) == (12, 4, 2)


def test_the_extension_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "really-a-png.jpg").write_bytes(image_bytes(1, "PNG"))
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    (sample,) = build_index(str(tmp_path / "out")).shards[0].samples
    assert sample.image_name == "00000000.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "cat/bad.jpg",
            image_bytes(1)[:-40],
            r"cat/bad\.jpg in .*/in is damaged or cut off .*replace or remove",
        ),
        (
            "cat/bad.jpg",
            image_bytes(1, "GIF"),
            r"cat/bad\.jpg in .*/in is no JPEG, PNG or WebP .*convert or",
        ),
        (
            "cat/x.bmp",
            b"BM",
            r"in holds 1 images that are no JPEG, PNG or WebP, the first is cat/x\.bmp: convert",
        ),
        (
            "loose.png",
            image_bytes(1, "PNG"),
            r"in holds 1 images beside its class folders, the first is loose",
        ),
    ],
)
def test_images_that_cannot_be_packed(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    make_file(fill_source(tmp_path / "in") / name, content)
    with pytest.raises(InputError, match=message):
        pack(str(tmp_path / "in"), str(tmp_path / "out"), shard_samples=2)
    assert not (tmp_path / "out").exists()


def test_all_damaged_images_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.data.packing.MOST_NAMED", 2)
    source, out = fill_source(tmp_path / "in"), tmp_path / "out"
    for name in ("a", "b", "c"):
        make_file(source / "cat" / f"bad-{name}.jpg", image_bytes(1)[:-40])
    out.mkdir()  # the user's own folder stays
    with pytest.raises(InputError, match=r"(?s)^3 of 15 images cannot.*bad-a\.jpg.*bad-b\.jpg.*\n  and 1 more$"):
        pack(str(source), str(out))
    assert os.listdir(out) == []


def test_a_failed_pack_leaves_nothing_in_a_bucket(tmp_path: Path, s3_server: str) -> None:
    make_file(fill_source(tmp_path / "in") / "cat" / "bad.jpg", image_bytes(1)[:-40])
    destination = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    with pytest.raises(InputError, match=r"bad\.jpg"):
        pack(str(tmp_path / "in"), destination, shard_samples=2)
    assert contents(destination) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda top: str(top / "nowhere"), r"there is no folder .*/nowhere: give a folder or a \.zip of JPEG"),
        (lambda top: str(top / "no.zip"), r"there is no file .*/no\.zip: give a folder or a \.zip"),
        (lambda top: str(top / "empty"), r"/empty is an empty folder: give a folder or a \.zip"),
        (lambda top: make_file(top / "x.rar"), r"x\.rar is no folder: give a folder or a \.zip"),
        (lambda top: make_file(top / "x.zip", b"PK-"), r"x\.zip is no zip, or is cut off .*: fetch it again"),
        (
            lambda top: str(Path(make_file(top / "t" / "a.txt")).parent),
            r"holds no images \(\.jpg, .*\) but 1 other files",
        ),
    ],
)
def test_sources_without_images(tmp_path: Path, source: Callable[[Path], str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        pack(source(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_zip_member_is_named(tmp_path: Path) -> None:
    archive = zip_of(fill_source(tmp_path / "in"), tmp_path / "in.zip")
    with zipfile.ZipFile(archive) as opened:
        offset = opened.getinfo("cat/0.jpeg").header_offset + 200
    data = bytearray(archive.read_bytes())
    data[offset] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"cat/0\.jpeg in .*in\.zip cannot be unzipped .*make the zip again"):
        pack(str(archive), str(tmp_path / "out"))


def test_destinations_that_cannot_be_used(tmp_path: Path, s3_server: str) -> None:
    source = str(fill_source(tmp_path / "in"))
    cases: dict[str, str] = {
        make_file(tmp_path / "file") + "/x": r"cannot write to .*/file/x: a part of the path is a file",
        "s3://no-such-bucket/x": "bucket no-such-bucket does not exist",
    }
    for destination, message in cases.items():
        with pytest.raises(InputError, match=message):
            pack(source, destination)
    pack(source, str(tmp_path / "out"))
    before = contents(str(tmp_path / "out"))
    with pytest.raises(
        InputError, match=r"/out already holds 2 files of shards \(index\.json, .*\): name an empty folder"
    ):
        pack(source, str(tmp_path / "out"))
    assert contents(str(tmp_path / "out")) == before


@pytest.mark.parametrize("limits", [{"shard_samples": 0}, {"shard_size_bytes": 0}])
def test_impossible_limits_are_refused(tmp_path: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="both must be at least 1"):
        pack(str(fill_source(tmp_path / "in")), str(tmp_path / "out"), **limits)


def test_samples_are_small_in_memory() -> None:
    assert not hasattr(Sample("k", "k.jpg", 0, 1, None), "__dict__")


@pytest.mark.parametrize("name", ["b.tar.gz", "b.tgz", "b.TAR", "b.tar.zst"])
def test_tars_that_would_be_passed_over_are_told(tmp_path: Path, name: str) -> None:
    for one in ("a.tar", name, "notes.targets"):
        (tmp_path / one).write_bytes(b"")
    with pytest.raises(
        InputError, match=rf"holds tars that are compressed or not called .tar \(1, the first is {name}\)"
    ):
        find_shards(str(tmp_path))
