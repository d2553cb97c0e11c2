"""The index beside shards, and that nothing which differs from it is ever trained on."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cluster.data.decoding import Pixels
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import INDEX_NAME, build_index, index_shards, read_index, verify_shards
from cluster.data.shard_store import FETCHES
from cluster.data.shards import Shard, ShardSet, find_shards
from cluster.storage.folder import Folder, open_folder, split_object
from cluster.storage.timeouts import USUAL_PATIENCE, ReadTimeouts
from freqgan.errors import FreqganError, InputError, RunError
from tests.support.commands import run_command
from tests.support.damages import damages, flipped
from tests.support.s3_server import BUCKET
from tests.support.shards import image_bytes, shard_members, write_tar

POLICY = ImagePolicy(size=8)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of four images, with an index."""
    for number in range(2):
        write_tar(tmp_path / "data" / f"{number:05d}.tar", shard_members(10 * number, 4))
    index_shards(str(tmp_path / "data"))
    return tmp_path / "data"


def all_images(index: ShardSet) -> Pixels:
    with BatchReader(index, POLICY, 0, DataSettings(shuffle=False)) as ingest:
        return ingest.batch(0, index.sample_count).images


# -- the file --------------------------------------------------------------------------------------


def test_an_index_is_what_the_walk_finds_and_checksums(shards: Path) -> None:
    index = build_index(str(shards))
    (shards / INDEX_NAME).rename(shards / "aside")
    walked = build_index(str(shards))
    assert all(sample.crc32 is not None for shard in index.shards for sample in shard.samples)
    assert all(shard.sha256 is None for shard in walked.shards)

    def without_sums(shard: Shard) -> tuple[object, ...]:
        return (
            shard.url,
            shard.size_bytes,
            [(s.key, s.image_name, s.offset, s.size_bytes, s.label) for s in shard.samples],
        )

    assert list(map(without_sums, index.shards)) == list(map(without_sums, walked.shards))


def test_shards_that_no_index_knows_are_walked(shards: Path) -> None:
    write_tar(shards / "00002.tar", shard_members(50, 2))
    index = build_index(str(shards))
    assert [shard.sha256 is None for shard in index.shards] == [False, False, True]
    assert len(all_images(index)) == 10
    index_shards(str(shards / "00002.tar"))
    assert all(shard.sha256 for shard in build_index(str(shards)).shards)


def test_the_names_of_classes_stay(shards: Path) -> None:
    path = shards / INDEX_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": ["cat", "dog", "owl"]}))
    index_shards(str(shards))
    assert json.loads(path.read_text())["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format":2}',
        '{"format":2,"shards":[{"shard":"x"}]}',
        "{",
        "\x00",
        '{"classes":5}',
        '{"format":2,"classes":[1],"shards":[]}',
    ],
)
def test_what_is_no_index_is_named(shards: Path, text: str) -> None:
    (shards / INDEX_NAME).write_text(text)
    with pytest.raises(InputError, match=rf"{shards}/index\.json is no index of shards .*shards index {shards}"):
        build_index(str(shards))


def test_an_index_of_before_is_passed_over(shards: Path) -> None:
    entry = {"shard": "00000.tar", "samples": 4, "bytes": 1, "sha256": "0"}
    (shards / INDEX_NAME).write_text(json.dumps({"classes": [], "shards": [entry]}))
    assert read_index(open_folder(str(shards))) == {}
    assert len(all_images(build_index(str(shards)))) == 8


# -- damage ----------------------------------------------------------------------------------------


def test_every_flipped_bit_and_every_cut_on_a_disk_is_noticed(shards: Path) -> None:
    index, path = build_index(str(shards)), shards / "00000.tar"
    whole, right = path.read_bytes(), all_images(index)
    for name, damage in damages(len(whole), 150):
        path.write_bytes(damage(whole))
        with pytest.raises(FreqganError) as noticed:  # pytest says DID NOT RAISE where it was not
            all_images(index)
        assert str(noticed.value).startswith((f"{path} is damaged: ", f"{path} has ")), name
    path.write_bytes(whole)
    assert (all_images(index) == right).all()


def test_what_was_damaged_on_its_way_is_fetched_again(
    shards: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in shards.iterdir():
        folder.upload(path, path.name)
    index, right = build_index(folder.url), all_images(build_index(str(shards)))
    download, pending = Folder.download, list[Callable[[bytes], bytes]]()

    def damaging(self: Folder, name: str, path: Path, timeouts: ReadTimeouts = USUAL_PATIENCE) -> None:
        download(self, name, path, timeouts)
        if pending:
            path.write_bytes(pending.pop()(path.read_bytes()))

    monkeypatch.setattr(Folder, "download", damaging)
    for name, damage in damages((shards / "00000.tar").stat().st_size, 40):
        pending[:] = [damage]
        with BatchReader(index, POLICY, 0, DataSettings(shuffle=False)) as ingest:
            assert (ingest.batch(0, 8).images == right).all(), name
            assert ingest.refetched == 1, name
    pending[:] = [lambda data: flipped(data, 5000)] * FETCHES
    with pytest.raises(RunError, match=r"00000\.tar is damaged: .*0000\.jpg at offset 512 .*shards verify"):
        all_images(index)


def test_a_bucket_with_an_index_is_not_listed(shards: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in shards.iterdir():
        folder.upload(path, path.name)
    listed, right = [split_object(url)[1] for url in find_shards(folder.url)], all_images(build_index(str(shards)))
    monkeypatch.setattr(Folder, "files", lambda self: pytest.fail("listed"))
    for data, names in (
        (folder.url, listed),
        (f"{folder.url}/", listed),
        (f"{folder.url}/*1.tar", [name for name in listed if name.endswith("1.tar")]),
    ):
        index = build_index(data)
        assert [split_object(shard.url)[1] for shard in index.shards] == names != []
    assert (all_images(build_index(folder.url)) == right).all()


def test_an_image_that_changes_while_it_is_mapped_is_noticed(shards: Path) -> None:
    index, path = build_index(str(shards)), shards / "00000.tar"
    sample = index.shards[0].samples[2]
    with BatchReader(index, POLICY, 0, DataSettings(shuffle=False)) as ingest:
        ingest.batch(0, 1)
        with path.open("r+b") as file:
            file.seek(sample.offset + 30)
            file.write(b"\xff\x00\xff")
        with pytest.raises(RunError, match=rf"{path} is damaged: 0002\.jpg at offset {sample.offset} is not what was"):
            ingest.batch(0, 4)


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_verify_names_all_that_is_wrong(
    shards: Path, s3_server: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(shards / "00002.tar", shard_members(50, 2))
    index_shards(str(shards))
    url = str(shards)
    if place == "bucket":
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        for path in shards.iterdir():
            open_folder(url).upload(path, path.name)
    assert run_command(capsys, "shards", "verify", url).out.strip() == "3 shards in order"
    folder, whole = open_folder(url), (shards / "00000.tar").read_bytes()
    folder.write("00000.tar", flipped(whole, 8 * 600))
    folder.write("00001.tar", (shards / "00001.tar").read_bytes()[:-512])
    folder.delete("00002.tar")
    rows = {u.rpartition("/")[2]: what for u, _, what in verify_shards(url)}
    assert "0000.jpg at offset 512" in str(rows["00000.tar"])
    assert "when it was indexed" in str(rows["00001.tar"])
    assert "not there" in str(rows["00002.tar"])
    told = run_command(capsys, "shards", "verify", url)
    assert told.code == 3
    assert "3 of 3 shards are damaged" in told.err
    assert all(name in told.out for name in rows)
    folder.write("00000.tar", flipped(whole, 8 * 100))
    assert "header" in str(verify_shards(f"{url}/00000.tar")[0][2])


def test_an_index_that_knows_the_first_of_joined_tars_alone_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (write_tar(tmp_path / f"{n}.part", shard_members(10 * n, 4)).read_bytes() for n in range(2))
    (tmp_path / "x.tar").write_bytes(one + bytes(59 * 512) + two)
    index_shards(str(tmp_path))
    assert run_command(capsys, "shards", "verify", tmp_path).code == 0
    content = json.loads((tmp_path / INDEX_NAME).read_text())
    content["shards"][0] |= {"samples": 4, "members": content["shards"][0]["members"][:4]}
    (tmp_path / INDEX_NAME).write_text(json.dumps(content))
    told = run_command(capsys, "shards", "verify", tmp_path)
    assert told.code == 3
    assert "4 images in it are not in the index: index it again" in told.out


def test_foreign_shards_are_indexed_and_what_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "a.tar", shard_members(0, 3))
    assert "no index knows 1 of them" in run_command(capsys, "shards", "verify", str(tmp_path)).out
    assert run_command(capsys, "shards", "index", str(tmp_path)).out.startswith("3 images in 1 shard (")
    assert run_command(capsys, "shards", "verify", str(tmp_path)).out.strip() == "1 shard in order"
    shutil.copy(tmp_path / "a.tar", tmp_path / "b.tar")
    write_tar(tmp_path / "c.tar", {"1.jpg": image_bytes(1)[:-30]})
    told = run_command(capsys, "shards", "index", str(tmp_path))
    assert told.code == 2
    assert "1.jpg in" in told.err
    told = run_command(capsys, "shards", "verify", str(tmp_path))
    assert told.code == 3
    assert "1 of 3 shards" in told.err


def test_info_counts_and_shows(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(shards / "00002.tar", {"1.png": image_bytes(1, "PNG", size=20)})
    told = run_command(capsys, "shards", "info", shards, "--grid", tmp_path / "grid.png")
    assert told.code == 0
    lines = [line.split(maxsplit=1) for line in told.out.splitlines() if line.strip()]
    facts = {words[0]: words[1].strip() for words in lines if len(words) > 1}
    assert facts["images"] == "9: 8 .jpg, 1 .png"
    assert "2 of 3 shards" in facts["in"]
    assert facts["labels"] == "3, from 0 to 2, 2 to 3 images each"
    assert facts["without"].split() == ["a", "label", "1", "image"]
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 65 - 1, 3 * 65 - 1)
    index_shards(str(shards))
    assert "all, with checksums" in run_command(capsys, "shards", "info", shards).out
