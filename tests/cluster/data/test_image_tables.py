"""Packing images with a table of them, and with files of their names: what is said of an image comes with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from cluster.data.image_tables import TableColumns, read_table
from cluster.data.packing import pack
from cluster.data.shard_index import build_index
from cluster.data.targets import stored_files, vector_in
from freqgan.errors import InputError
from tests.support.commands import refused, run_command
from tests.support.shards import image_bytes, make_file, npy_bytes, upload, zip_of

Capsys = pytest.CaptureFixture[str]
COLUMNS = TableColumns(category="kind", caption="text", vector="vector")
ALL = ["--class-column", "kind", "--caption-column", "text", "--vector-column", "vector"]
ROWS: list[dict[str, Any]] = [
    {"file_name": "b.png", "kind": "10", "text": " a, dog ", "vector": [1, 2.5], "age": 3, "code": "007", "name": "x"},
    {"file_name": "./sub/a.png", "kind": "9", "text": "größer", "vector": [-1, 0], "age": 4, "code": "1", "name": None},
    {"file_name": "sub\\c.png", "kind": "10", "text": None, "vector": None, "age": 5, "code": "2", "name": "y z"},
]
EXPECTED = {
    0: (1, {"txt": "a, dog", "npy": [1, 2.5], "json": {"age": 3, "code": "007", "name": "x"}}),
    1: (0, {"txt": "größer", "npy": [-1, 0], "json": {"age": 4, "code": "1", "name": None}}),
    2: (1, {"json": {"age": 5, "code": "2", "name": "y z"}}),
}
"""Label and members by the number of the image; its table has the rows of ROWS, CSV has them as text."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three images that ROWS describes, and one that it does not."""
    for number, name in enumerate(("b", "sub/a", "sub/c", "d")):
        make_file(tmp_path / "in" / f"{name}.png", image_bytes(number, "PNG"))
    return tmp_path / "in"


def csv_text(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
        return '"' + text.replace('"', '""') + '"'

    return "\n".join([",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]) + "\n"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """ROWS in the format that the name asks for."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text(csv_text(rows), "utf-8-sig")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


READ: dict[str, Callable[[bytes], Any]] = {
    "npy": lambda data: vector_in(data, "x").tolist(), "txt": bytes.decode, "json": json.loads,
}  # fmt: skip


def content(url: Path | str) -> dict[int, tuple[int | None, dict[str, Any]]]:
    """Label and members of every packed image, by its number."""
    numbers = {image_bytes(number, "PNG"): number for number in range(8)}
    packed = {}
    for shard in build_index(str(url)).shards:
        for sample in shard.samples:
            files, members = stored_files(shard, sample), dict[str, Any]()
            for member in sample.members:
                data = files.bytes_of(member.extension)
                members[member.extension] = READ[member.extension](data)
            packed[numbers[files.read(sample.offset, sample.size_bytes)]] = (sample.label, members)
    return packed


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_come_with_their_images(pictures: Path, tmp_path: Path, kind: str, capsys: Capsys) -> None:
    table = write_rows(tmp_path / f"t.{kind}", [*ROWS, ROWS[0] | {"file_name": "gone.png"}])
    told = run_command(capsys, "shards", "pack", pictures, tmp_path / "out", "--table", table, *ALL)
    assert content(tmp_path / "out") == EXPECTED
    assert build_index(str(tmp_path / "out")).class_names == ("9", "10")
    assert told.code == 0
    assert told.out.startswith("3 images of 2 classes in 1 shard ")
    assert "beside the images: 2 .npy, 2 .txt, 3 .json\n" in told.out
    assert f"described by {table}\n" in told.out
    assert "does not name them: 1 image (d.png)\n" in told.out
    assert "in it without an image: 1 row (gone.png)\n" in told.out
    assert "0=9, 1=10" in told.out


def test_the_same_source_gives_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    write_rows(pictures / "metadata.jsonl", ROWS)
    for name in ("one", "two"):
        pack(str(pictures), str(tmp_path / name), columns=COLUMNS)
    assert (tmp_path / "one/shard-00000.tar").read_bytes() == (tmp_path / "two/shard-00000.tar").read_bytes()


def test_metadata_is_used_without_being_asked_for(pictures: Path, tmp_path: Path) -> None:
    write_rows(pictures / "metadata.csv", ROWS[:1])
    report = pack(str(pictures), str(tmp_path / "out"))
    assert (report.table, report.images, report.others, list(report.unnamed)) == (
        "metadata.csv", 1, 0, ["d.png", "sub/a.png", "sub/c.png"],
    )  # fmt: skip
    ((label, members),) = content(tmp_path / "out").values()
    assert label is None
    assert members["json"]["text"] == " a, dog "


def test_metadata_that_names_no_images_is_another_file(pictures: Path, tmp_path: Path) -> None:
    (pictures / "metadata.csv").write_text("author,year\nme,2020\n")
    (pictures / "d.png").unlink()
    (pictures / "b.png").unlink()
    report = pack(str(pictures), str(tmp_path / "out"))
    assert (report.table, report.images, report.others) == ("", 2, 1)


@pytest.mark.parametrize("inside", ["", "top/"])
def test_tables_in_zips_and_buckets(pictures: Path, tmp_path: Path, inside: str, s3_server: str) -> None:
    write_rows(pictures / "metadata.jsonl", ROWS)
    source = str(zip_of(pictures, tmp_path / "in.zip", inside)) if inside else upload(pictures)
    report = pack(source, str(tmp_path / "out"), columns=COLUMNS)
    assert report.table == f"{inside}metadata.jsonl"
    assert content(tmp_path / "out") == EXPECTED


def test_a_table_in_a_bucket(pictures: Path, tmp_path: Path, s3_server: str) -> None:
    folder = make_file(tmp_path / "table" / "t.csv", csv_text(ROWS).encode())
    pack(str(pictures), str(tmp_path / "out"), table=f"{upload(Path(folder).parent)}/t.csv", columns=COLUMNS)
    assert content(tmp_path / "out") == EXPECTED


def test_folders_stay_classes_beside_a_table_without_them(tmp_path: Path) -> None:
    for number, name in enumerate(("cat/0", "dog/1")):
        make_file(tmp_path / "in" / f"{name}.png", image_bytes(number, "PNG"))
    rows = [{"path": "cat/0.png", "age": 1}, {"path": "dog/1.png", "age": 2}]
    table = write_rows(tmp_path / "in" / "metadata.csv", rows)
    pack(str(tmp_path / "in"), str(tmp_path / "out"), table=str(table))
    assert content(tmp_path / "out") == {0: (0, {"json": {"age": 1}}), 1: (1, {"json": {"age": 2}})}


def test_files_of_the_name_of_an_image_lie_beside_it(pictures: Path, tmp_path: Path, capsys: Capsys) -> None:
    for path in (pictures / "sub").iterdir():
        path.rename(pictures / path.name)
    (pictures / "sub").rmdir()
    make_file(pictures / "a.txt", b"  as it is \n")
    make_file(pictures / "a.JSON", b'{"x":1}')
    make_file(pictures / "b.npy", npy_bytes(np.arange(3)))
    make_file(pictures / "lonely.txt", b"")
    make_file(pictures / "b.xml", b"")
    told = run_command(capsys, "shards", "pack", pictures, tmp_path / "out")
    assert content(tmp_path / "out") == {
        0: (None, {"npy": [0, 1, 2]}), 1: (None, {"txt": "  as it is \n", "json": {"x": 1}}), 2: (None, {}),
        3: (None, {}),
    }  # fmt: skip
    assert "passed over: 2 other files" in told.out
    table = write_rows(tmp_path / "t.jsonl", [{"file": "a.png", "say": "from the table"}])
    pack(str(pictures), str(tmp_path / "two"), table=str(table), columns=TableColumns(caption="say"))
    assert content(tmp_path / "two") == {1: (None, {"txt": "from the table", "json": {"x": 1}})}


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "file_name\n", "has no rows"),
        ("t.csv", "a,b\n1,2\n", "has no column file_name, file, path, image or filename, but a, b"),
        ("t.csv", "file,file\na,b\n", "line 1: two columns are called 'file'"),
        ("t.csv", 'file,x\na.png,1\n"b.png,2\n', "line 3: .*write it again"),
        ("t.csv", "file,x\na.png,1,2\n", "line 2: 3 cells for 2 columns"),
        ("t.csv", "file,x\n,1\n", "line 2, column file: None is no path"),
        ("t.csv", "file,x\na.png,1\n./a.png,2\n", "line 3: a.png is named by line 2 already"),
        ("t.csv", "file,kind\na.png,\n", "line 2, column kind: None names no class"),
        ("t.csv", "file,vector\na.png,1 x\n", "line 2, column vector: '1 x' is no list of numbers"),
        ("t.csv", "file,vector\na.png,1 1e99\n", "line 2, column vector: .*not finite"),
        ("t.csv", "file,vector\na.png,1 2\nb.png,1\n", "line 3, column vector: 1 numbers, but 2"),
        ("t.csv", b"file\na.png\n\xff.png\n", "line 3: byte 0xff is no UTF-8"),
        ("t.jsonl", '{"file":"a.png"}\n{', "line 2: no JSON"),
        ("t.jsonl", "[1]", "line 1: it is no object"),
        ("t.jsonl", '{"file":5}', "line 1, column file: 5 is no path"),
        ("t.jsonl", '{"file":"a.png","text":["x"]}', "line 1, column text: .* is no text"),
        ("t.jsonl", '{"file":"a.png","vector":[1,[2]]}', "line 1, column vector: .* no list of numbers"),
        ("t.jsonl", '{"file":"a.png","x":[NaN]}', "line 1: its columns cannot be written as JSON"),
        ("t.jsonl", '{"file":"a.png","text":"\\ud800"}', "line 1, column text: "),
        ("t.parquet", "file", "is no Parquet file"),
        ("t.txt", "file", "is no .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_bad_tables_say_where(name: str, text: str | bytes, what: str) -> None:
    columns = TableColumns(**{
        option: column
        for option, column in (("category", "kind"), ("caption", "text"), ("vector", "vector"))
        if column in str(text)
    })  # fmt: skip
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InputError, match=rf"{name}.*{what}"):
        read_table(data, name, columns)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--table", "none.csv"], "--table none.csv: there is no such file"),
        (["--class-column", "kinds"], "--class-column kinds: metadata.csv has no such column (did you mean kind?)"),
        (["--image-column", "kind"], "metadata.csv names no image of"),
    ],
)
def test_tables_that_do_not_fit(pictures: Path, tmp_path: Path, capsys: Capsys, options: list[str], what: str) -> None:
    rows = [row | {"kind": f"{number}.png"} for number, row in enumerate(ROWS)]
    write_rows(pictures / "metadata.csv", rows)
    told = refused(run_command(capsys, "shards", "pack", pictures, tmp_path / "out", *options))
    assert what in told
    assert not (tmp_path / "out").exists()


def test_columns_without_a_table(pictures: Path, tmp_path: Path, capsys: Capsys) -> None:
    told = refused(run_command(capsys, "shards", "pack", pictures, tmp_path / "out", "--caption-column", "text"))
    assert "there is none: give it by --table, or put metadata.csv into" in told


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.npy": npy_bytes([0.0, 1.0, 2.0])}, r"1 in .*, \.npy has 3 numbers, and others have 2|others have 3"),
        ({"1.npy": npy_bytes([0.0, 1.0])[:90]}, r"1 in .*, \.npy"),
        ({"1.txt": b"\xff\xfe\xff"}, r"1 in .*, \.txt is no UTF-8 text"),
        ({"1.json": b"{"}, r"1 in .*, \.json is no JSON"),
        ({"0.txt": b"\xff", "1.txt": b"\xff"}, "2 of 2 images, or what lies beside them, cannot be packed"),
    ],
)
def test_files_beside_images_are_looked_at(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        (source / f"{number}.png").write_bytes(image_bytes(number, "PNG"))
        (source / f"{number}.npy").write_bytes(npy_bytes([float(number), 1.0]))
    for name, content in files.items():
        (source / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        pack(str(source), str(tmp_path / "shards"))
