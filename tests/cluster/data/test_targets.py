"""What lies beside images: where it is in shards, and how it becomes the numbers of a target."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy_format

from cluster.data.quarantine import DamageFoundError
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import INDEX_NAME, build_index, index_shards, verify_shards
from cluster.data.shard_store import UnusableError
from cluster.data.shards import Member, Sample, Shard, ShardSet
from cluster.data.targets import (
    FeatureTable,
    SampleFiles,
    TargetReader,
    caption_bytes,
    caption_of,
    embedding_of,
    normal_draws,
    vector_in,
)
from cluster.run.data_source import DataSource, measure_statistics, open_source
from freqgan.errors import InputError
from freqgan.model.conditioning_settings import ConditioningSettings
from freqgan.targets import TargetLayout
from tests.support.commands import run_command
from tests.support.runs import tiny_run_settings
from tests.support.shards import described_members, image_bytes, npy_bytes, shard_members, write_tar

EVERYTHING: dict[str, Any] = {"kinds": "class,embedding,caption", "embedding_length": 5, "caption_bytes": 12}
LAYOUT = TargetLayout(classes=2, embedding=5, caption=12, packed=True)
IN_ORDER = DataSettings(shuffle=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two shards of eight pictures with everything beside them."""
    for shard in range(2):
        write_tar(tmp_path / "data" / f"{shard}.tar", described_members(8 * shard, 8))
    index_shards(str(tmp_path / "data"))
    return tmp_path / "data"


def reader(index: ShardSet, settings: ConditioningSettings, training: bool = False, most: int | None = None) -> Any:
    targets = TargetReader(LAYOUT, settings, 3, training)
    return BatchReader(index, ImagePolicy(size=16), 0, IN_ORDER, most_damaged=most, targets=targets)


def row_of(number: int) -> list[float]:
    """The target of picture ``number``, written out by hand."""
    vector = np.random.default_rng(number).normal(3, 2, 5).astype(np.float32)
    text = f"picture {number}, größer".encode()[:12]  # no letter is cut in two for numbers of one or two digits
    return [number % 2, *vector.tolist(), *text, *[0] * (12 - len(text)), 1]


# -- where members lie -----------------------------------------------------------------------------


def test_members_are_where_the_walk_and_the_index_say(data: Path) -> None:
    indexed = build_index(str(data))
    (data / INDEX_NAME).unlink()
    walked = build_index(str(data))
    for shard, other in zip(indexed.shards, walked.shards, strict=True):
        content, expected = Path(shard.url).read_bytes(), described_members(0, 16)
        for sample, unindexed in zip(shard.samples, other.samples, strict=True):
            assert [m.extension for m in sample.members] == ["npy", "txt", "json"]
            for member, plain in zip(sample.members, unindexed.members, strict=True):
                part = content[member.offset : member.offset + member.size_bytes]
                assert part == expected[f"{sample.key}.{member.extension}"]
                assert (plain.offset, plain.size_bytes, plain.crc32) == (member.offset, member.size_bytes, None)
        assert shard.others == other.others == ()


def test_an_index_without_members_has_nothing_of_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", shard_members(0, 4))
    index_shards(str(tmp_path))
    (entry,) = json.loads((tmp_path / INDEX_NAME).read_text())["shards"]
    assert {len(fields) for fields in entry["members"]} == {6}
    assert entry.keys() == {"shard", "samples", "bytes", "sha256", "others", "members"}


def as_format_2(folder: Path) -> None:
    """Makes the index what it was before members were known."""
    path = folder / INDEX_NAME
    content = json.loads(path.read_text())
    for entry in content["shards"]:
        entry["others"] = {f".{kind}": len(entry["members"]) for kind in ("npy", "txt", "json")}
        entry["members"] = [fields[:6] for fields in entry["members"]]
    path.write_text(json.dumps(content | {"format": 2}))


def test_indexes_of_format_2_are_read_and_say_when_they_do_not_know(data: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", data, classes=2)
    before = open_source(settings)
    as_format_2(data)
    assert open_source(settings).fingerprint() == before.fingerprint()
    assert [s.crc32 for s in build_index(str(data)).shards[0].samples] == [
        s.crc32 for s in before.index.shards[0].samples
    ]
    with pytest.raises(InputError, match=r"index of .*0\.tar does not know .*2 shards.*freqgan shards index"):
        open_source(tiny_run_settings(tmp_path / "run", data, classes=2, conditioning=EVERYTHING))
    index_shards(str(data / "0.tar"))
    assert [shard.knows_members for shard in build_index(str(data)).shards] == [True, False]
    index_shards(str(data))
    assert open_source(tiny_run_settings(tmp_path / "run", data, classes=2, conditioning=EVERYTHING))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("1.png", image_bytes(1)), ("1.txt", b"a"), ("1.txt", b"b")])
    with pytest.raises(InputError, match=r"two members 1\.txt: rename or remove one"):
        build_index(str(tmp_path))


def test_the_fingerprint_has_what_is_read_alone(data: Path, tmp_path: Path) -> None:
    plain = tiny_run_settings(tmp_path / "run", data, classes=2)
    known = open_source(plain).fingerprint()
    captions = plain.model_copy(update={"conditioning": ConditioningSettings(kinds=("class", "caption"))})
    assert open_source(captions).fingerprint() != known
    stripped = ShardSet(tuple(_without_members(shard) for shard in build_index(str(data)).shards))
    assert DataSource(plain, stripped).fingerprint() == known
    assert DataSource(captions, stripped).fingerprint() == known  # nothing lies beside these


def _without_members(shard: Shard) -> Shard:
    samples = (Sample(s.key, s.image_name, s.offset, s.size_bytes, s.label, s.crc32) for s in shard.samples)
    return Shard(shard.url, shard.size_bytes, tuple(samples), shard.sha256)


def test_verify_names_a_damaged_member(data: Path) -> None:
    flip(data, "txt")
    ((_, _, sound), (_, _, wrong)) = verify_shards(str(data))
    assert sound is None
    assert wrong is not None
    assert wrong.startswith("0010.txt at offset ")


def test_info_counts_members(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run_command(capsys, "shards", "info", data).out
    assert "all with .npy of 5 numbers, all with .txt, all with .json" in printed
    extra = {"9000.png": image_bytes(9000), "9001.png": image_bytes(9001), "9001.npy": b"no array"}
    write_tar(data / "00.tar", extra)
    printed = run_command(capsys, "shards", "index", data).out
    assert "18 images" in printed
    assert "17 with .npy of 5 numbers, 16 with .txt, 16 with .json" in printed


def flip(data: Path, extension: str) -> None:
    """Changes a byte of that member of picture 10, which is in the second shard."""
    member = build_index(str(data)).shards[1].samples[2].member(extension)
    assert member is not None
    content = bytearray((data / "1.tar").read_bytes())
    content[member.offset + member.size_bytes - 1] ^= 1
    (data / "1.tar").write_bytes(content)


# -- rows ------------------------------------------------------------------------------------------


def test_rows_are_what_lies_beside_the_images(data: Path) -> None:
    with reader(build_index(str(data)), ConditioningSettings.model_validate(EVERYTHING)) as ingest:
        batch = ingest.batch(0, 16)
    assert (batch.targets.dtype, batch.targets.shape) == (np.float32, (16, LAYOUT.width))
    assert batch.targets.tolist() == [row_of(number) for number in range(16)]


def test_fields_of_json_are_vectors_and_texts(data: Path) -> None:
    settings = ConditioningSettings.model_validate(
        EVERYTHING | {"embedding": "json:age,box", "caption": "json:word", "embedding_length": 3}
    )
    layout = TargetLayout(embedding=3, caption=7, packed=True)
    with BatchReader(
        build_index(str(data)), ImagePolicy(size=16), 0, IN_ORDER, targets=TargetReader(layout, settings)
    ) as ingest:
        row = ingest.batch(9, 1).targets[0]
    assert row.tolist() == [9, 1.5, -9, *"größe".encode(), 1]


def test_a_share_is_not_shown_in_training_wherever_reading_begins(data: Path) -> None:
    settings = ConditioningSettings.model_validate(EVERYTHING | {"drop": 0.3})
    index = build_index(str(data))
    with reader(index, settings, training=True) as ingest:
        shown = ingest.batch(0, 2000).targets[:, -1]
        again = ingest.batch(1005, 100).targets[:, -1]
        parts = ingest.batch(3, 10).targets
    assert again.tolist() == shown[1005:1105].tolist()
    assert set(shown.tolist()) == {0.0, 1.0}
    assert abs(float((shown == 0).mean()) - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    with reader(index, settings, training=False) as ingest:
        assert ingest.batch(0, 2000).targets[:, -1].tolist() == [1.0] * 2000
        assert (ingest.batch(3, 10).targets[:, :-1] == parts[:, :-1]).all()


def test_features_are_those_of_a_neighbour_in_training(data: Path) -> None:
    layout = TargetLayout(features=2, packed=True)
    values = np.arange(32, dtype=np.float32).reshape(16, 2)
    neighbours = np.stack([np.arange(16), (np.arange(16) + 5) % 16], 1).astype(np.int32)
    settings = ConditioningSettings(kinds=("features",), drop=0)
    index = build_index(str(data))
    shown = {}
    for noise in (0.0, 0.25):
        table = FeatureTable(values, neighbours, noise)
        targets = TargetReader(layout, settings, 1, True, table)
        with BatchReader(index, ImagePolicy(size=16), 0, IN_ORDER, targets=targets) as ingest:
            shown[noise] = ingest.batch(0, 1600).targets[:, :2]
    numbers = np.arange(1600) % 16
    chosen = shown[0.0][:, 0].astype(int) // 2
    assert ((chosen == numbers) | (chosen == (numbers + 5) % 16)).all()
    assert 700 < int((chosen == numbers).sum()) < 900
    difference = shown[0.25] - shown[0.0]
    assert abs(float(difference.std()) - 0.25) < 0.02
    assert abs(float(difference.mean())) < 0.03
    own = TargetReader(layout, settings, 1, False, FeatureTable(values, neighbours, 0.25))
    with BatchReader(index, ImagePolicy(size=16), 0, IN_ORDER, targets=own) as ingest:
        assert (ingest.batch(0, 16).targets[:, :2] == values).all()


def test_draws_are_normal_and_never_change() -> None:
    draws = np.concatenate([normal_draws(64, 0, "x", position) for position in range(300)])
    assert abs(float(draws.mean())) < 0.03
    assert abs(float(draws.std()) - 1) < 0.02
    assert normal_draws(3, 1, "a", 2).tolist() == pytest.approx([0.18509425, -1.32034671, 2.01395416], abs=1e-6)


def test_statistics_hold_targets_as_they_are(data: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", data, classes=2, conditioning=EVERYTHING | {"drop": 0.9})
    statistics = measure_statistics(open_source(settings))
    assert statistics.targets is not None
    rows = sorted(statistics.targets.tolist())
    assert rows == sorted(row_of(number) for number in range(16))
    assert measure_statistics(open_source(tiny_run_settings(tmp_path, data, classes=2))).targets is None


# -- what cannot be read ---------------------------------------------------------------------------


def files_of(**members: bytes) -> SampleFiles:
    """A sample of which every member is as given."""
    content, entries = b"", []
    for extension, data in members.items():
        entries.append(Member(extension, len(content), len(data)))
        content += data
    sample = Sample("7", "7.png", 0, 0, None, members=tuple(entries))
    shard = Shard("/x.tar", len(content), (sample,))
    return SampleFiles(shard, sample, lambda offset, size: content[offset : offset + size])


def header_of(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class Boom:
    """Its pickle would write a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("/tmp/freqgan-unpickled"),)


def object_array() -> bytes:
    buffer = io.BytesIO()
    npy_format.write_array(buffer, np.array([Boom()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY\x01\x00", "no .npy file"),
        (npy_bytes([1.0, 2.0])[:-3], "cut off: 13 bytes of 2 numbers of float64"),
        (object_array(), "holds object, no numbers"),
        (npy_bytes(["a", "b"]), "holds <U1, no numbers"),
        (npy_bytes([1j]), "holds complex128, no numbers"),
        (npy_bytes(np.zeros(2, [("a", "f4")])), "no numbers"),
        (header_of("(10**18,)"), "no .npy file"),
        (header_of("(1000000000000000000,)"), "cut off: 0 bytes of 1000000000000000000 numbers"),
        (header_of("(-1,)"), "no .npy file"),
        (header_of("__import__('os')"), "no .npy file"),
        (b"\x93NUMPY\x03\x00" + bytes(20), r"version 3\.0"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "no .npy file"),
    ],
)
def test_files_that_are_no_vectors(content: bytes, what: str) -> None:
    with pytest.raises(UnusableError, match=rf"7\.npy in /x\.tar.*{what}"):
        embedding_of(files_of(npy=content), "npy")
    assert not Path("/tmp/freqgan-unpickled").exists()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f8", "i1", "u1", "i8", "?"])
def test_numbers_of_any_type_are_vectors(kind: str) -> None:
    values = np.array([[1, 0, 1], [0, 1, 1]], dtype=kind)
    assert vector_in(npy_bytes(values), "x").tolist() == [1, 0, 1, 0, 1, 1]
    assert vector_in(npy_bytes(np.asfortranarray(values)), "x").tolist() == [1, 0, 1, 0, 1, 1]
    assert vector_in(npy_bytes(np.array(5, dtype=kind)), "x").tolist() == [bool(5) if kind == "?" else 5]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(value: float) -> None:
    with pytest.raises(UnusableError, match=r"7\.npy in /x\.tar holds .* at place 1"):
        embedding_of(files_of(npy=npy_bytes([0.0, value])), "npy")


@pytest.mark.parametrize(
    ("content", "source", "what"),
    [
        (b"{", "json:a", "no JSON"),
        (b"[" * 100_000, "json:a", "no JSON"),
        (b"[1]", "json:a", "no fields"),
        (b'{"b":1,"c":2}', "json:a", "no field 'a'; it has 'b', 'c'"),
        (b'{"a":"1"}', "json:a", "no number"),
        (b'{"a":null}', "json:a", "no number"),
        (b'{"a":{"b":1}}', "json:a", "no number"),
        (b'{"a":[1,[2,3]]}', "json:a", "no number"),
        (b'{"a":' + b"9" * 400 + b"}", "json:a", "no number"),
        (b'{"a":' + b"9" * 5000 + b"}", "json:a", "no JSON"),
        (b'{"a":[1,NaN]}', "json:a", "holds nan at place 1"),
        (b'{"a":1,"b":1e39}', "json:a,b", "holds inf at place 1"),
        (b"\xff", "json:a", "no UTF-8"),
    ],
)
def test_fields_that_are_no_vectors(content: bytes, source: str, what: str) -> None:
    with pytest.raises(UnusableError, match=rf"7\.json in /x\.tar.*{what}"):
        embedding_of(files_of(json=content), source)


@pytest.mark.parametrize(
    ("members", "source", "what"),
    [
        ({"txt": b"abc\xff"}, "txt", r"7\.txt in /x\.tar is no UTF-8 text \(byte 0xff at 3\)"),
        ({"txt": b"a\0b\0"}, "txt", r"text of 7\.txt in /x\.tar has a zero byte"),
        ({"json": b'{"a":5}'}, "json:a", r"field 'a' of 7\.json in /x\.tar is no text"),
        ({"json": b'{"a":"\\ud800"}'}, "json:a", r"field 'a' of 7\.json in /x\.tar is no text"),
        ({}, "txt", r"there is no 7\.txt in /x\.tar"),
    ],
)
def test_members_that_are_no_texts(members: dict[str, bytes], source: str, what: str) -> None:
    with pytest.raises(UnusableError, match=what):
        caption_of(files_of(**members), source)


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [("  ab c \n", 9, "ab c"), ("größer", 3, "gr"), ("größer", 4, "grö"), ("", 4, ""), ("日本", 5, "日"), ("é", 1, "")],
)
def test_texts_are_cut_at_whole_letters(text: str, most: int, cut: str) -> None:
    assert caption_bytes(text, most).tobytes().decode() == cut


def test_a_byte_order_mark_is_no_text() -> None:
    assert caption_of(files_of(txt=b"\xef\xbb\xbfa"), "txt") == "a"


@pytest.mark.parametrize("extension", ["npy", "txt"])
def test_a_damaged_member_leaves_out_its_image(data: Path, extension: str) -> None:
    index = build_index(str(data))
    flip(data, extension)
    settings = ConditioningSettings.model_validate(EVERYTHING)
    with reader(index, settings, most=16) as ingest:
        with pytest.raises(DamageFoundError, match=rf"0010\.{extension} at offset") as damage:
            ingest.batch(0, 16)
        assert [(one.shard_number, one.sample_number, one.position) for one in damage.value.found] == [(1, 2, 10)]
        ingest.leave_out(damage.value.found)
        assert ingest.batch(0, 16).targets.tolist() == [row_of(n % 16) for n in range(17) if n != 10]


def test_a_damaged_member_that_nobody_reads_leaves_out_no_image(data: Path) -> None:
    index = build_index(str(data))
    flip(data, "json")
    with reader(index, ConditioningSettings.model_validate(EVERYTHING), most=16) as ingest:
        with pytest.raises(DamageFoundError, match=r"0010\.json at offset") as damage:
            ingest.batch(0, 16)
        ingest.leave_out(damage.value.found)
        assert ingest.batch(0, 16).targets.tolist() == [row_of(number) for number in range(16)]


def test_an_unusable_member_leaves_out_its_image(tmp_path: Path) -> None:
    members = described_members(0, 8) | {"0003.npy": npy_bytes([1.0]), "0005.txt": b"\xff"}
    write_tar(tmp_path / "0.tar", members)
    index_shards(str(tmp_path))
    with (
        reader(build_index(str(tmp_path)), ConditioningSettings.model_validate(EVERYTHING), most=8) as ingest,
        pytest.raises(DamageFoundError) as damage,
    ):
        ingest.batch(0, 8)
    assert [one.sample_number for one in damage.value.found] == [3, 5]
    assert damage.value.found[0].reason == (
        f"0003.npy in {tmp_path}/0.tar has 1 number, and conditioning.embedding_length is 5: "
        "give every image a vector of one length"
    )


# -- before a training -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditioning", "what"),
    [
        ({"kinds": "embedding", "embedding_length": 4}, r"embedding_length: 4, .* has 5 numbers; set .*length=5$"),
        (
            {"kinds": "embedding", "embedding_length": 4, "embedding": "json:age,box"},
            r"has 3 numbers; set conditioning\.embedding_length=3$",
        ),
        ({"kinds": "embedding", "embedding_length": 5, "embedding": "bin"}, "'bin' cannot be read; give npy, or json"),
        (
            {"kinds": "embedding", "embedding_length": 5, "embedding": "json:age,foo"},
            r"embedding: json:age,foo can be read of none of the first 8 images: .*no field 'foo'.*name fields",
        ),
        ({"kinds": "caption", "caption": "json:bar"}, r"caption: json:bar can be read of none .*no field 'bar'"),
        ({"kinds": "caption", "caption": "npy"}, "'npy' cannot be read; give txt, or json"),
    ],
)
def test_conditioning_that_does_not_fit_the_data(
    data: Path, tmp_path: Path, conditioning: dict[str, Any], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        open_source(tiny_run_settings(tmp_path / "run", data, conditioning=conditioning))


def test_images_without_the_member_are_counted(data: Path, tmp_path: Path) -> None:
    write_tar(data / "2.tar", {"90.png": image_bytes(90), "91.png": image_bytes(91), "91.npy": npy_bytes([0.0])})
    build = partial(tiny_run_settings, tmp_path / "run", data)
    what = r"embedding is in \.npy beside the images, and 1 of 18 images have none, the first is 90\.png in .*2\.tar"
    with pytest.raises(InputError, match=what):
        open_source(build(conditioning={"kinds": "embedding", "embedding_length": 5}))
    with pytest.raises(InputError, match=r"caption is in \.txt beside the images, and 2 of 18 images have none"):
        open_source(build(conditioning={"kinds": "caption"}))
