"""Tables that describe images: CSV, JSON lines or Parquet, with a class, a text, a vector and fields in each row.

Rows say by their number what is wrong with them. Nothing here reads images.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freqgan.errors import InputError, nearest

IMAGE_COLUMNS = ("file_name", "file", "path", "image", "filename")
"""What the column of the images' paths is called by default; the first that there is."""
FOUND_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables beside images that are used without being asked for: the convention of Hugging Face's image folders."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_DIVIDER = re.compile(r"[\s,;]+")
_LONGEST_CELL = 2**27


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table are what; all others become fields.

    Attributes:
        image: of the path; the first of IMAGE_COLUMNS where not given.
        category: of the class.
        caption: of the text.
        vector: of the numbers.

    """

    image: str | None = None
    category: str | None = None
    caption: str | None = None
    vector: str | None = None

    def __bool__(self) -> bool:
        """Whether any was given."""
        return any((self.image, self.category, self.caption, self.vector))


NO_COLUMNS = TableColumns()


@dataclass(frozen=True)
class Row:
    """What a table says of one image.

    Attributes:
        line: where it stands: the number of its line, or of its row from 1 in Parquet.
        category: the name of the class, None where there is no such column.
        members: the bytes that are to lie beside the image, by extension.

    """

    line: int
    category: str | None
    members: Mapping[str, bytes] = field(default_factory=dict)


Record = tuple[int, dict[str, Any]]
"""A line's number and its cells by column."""


def read_table(data: bytes, name: str, columns: TableColumns) -> dict[str, Row]:
    """Return the rows of a table by the path of their image, as the table writes it but for "./" and "\\\\".

    Args:
        data: the bytes of the file.
        name: of the file, whose ending says what it is, and which errors name.
        columns: that are asked for.

    Raises:
        InputError: the table cannot be read, a column is not there, two rows name one image, or a cell is not what its
            column holds; with the line.

    """
    header, records = _records(data, name, (columns.category, columns.caption, columns.vector))
    image = image_column(header, name, columns)
    for option, column in (("class", columns.category), ("caption", columns.caption), ("vector", columns.vector)):
        if column is not None and column not in header:
            raise InputError(
                f"--{option}-column {column}: {name} has no such column{nearest(column, list(header))}; it has "
                f"{', '.join(header)}"
            )
    rows: dict[str, Row] = {}
    length = 0
    for line, cells in records:
        path = _path(cells.get(image), f"{name}, line {line}, column {image}")
        if path in rows:
            raise InputError(f"{name}, line {line}: {path} is named by line {rows[path].line} already: remove one")
        rows[path], length = _row(name, line, cells, image, columns, length)
    if not rows:
        raise InputError(f"{name} has no rows: give a table that names images")
    return rows


def image_column(header: Sequence[str], name: str, columns: TableColumns) -> str:
    """Return which column of ``header`` holds the paths of images; InputError where there is none."""
    if columns.image is not None:
        if columns.image not in header:
            raise InputError(
                f"--image-column {columns.image}: {name} has no such column{nearest(columns.image, list(header))}; it "
                f"has {', '.join(header)}"
            )
        return columns.image
    column = next((column for column in IMAGE_COLUMNS if column in header), None)
    if column is None:
        raise InputError(
            f"{name} has no column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, but {', '.join(header)}: "
            "say by --image-column which one holds the path of the image"
        )
    return column


def names_images(data: bytes, name: str) -> bool:
    """Return whether a table that nobody asked for has a column of images' paths; False where it cannot be read."""
    try:
        header, _ = _records(data, name, ())
        image_column(header, name, TableColumns())
    except InputError:
        return False
    return True


def clean_path(path: str) -> str:
    """Return a path relative to the folder of images, with "/" between its parts."""
    return posixpath.normpath(path.replace("\\", "/")).lstrip("/")


# -- formats ---------------------------------------------------------------------------------------


def _records(data: bytes, name: str, texts: Collection[str | None]) -> tuple[list[str], Iterator[Record]]:
    """Return the names of the columns, and the rows; the columns ``texts`` of a CSV stay as they are written."""
    extension = posixpath.splitext(name)[1].lower()
    if extension == ".parquet":
        return _parquet_records(data, name)
    if extension not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise InputError(f"{name} is no .csv, .tsv, .jsonl or .parquet: convert the table to one of these")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: byte {data[error.start]:#04x} is no UTF-8; save it as UTF-8") from error
    if extension in (".csv", ".tsv"):
        return _csv_records(text, name, "," if extension == ".csv" else "\t", texts)
    return _json_records(text, name)


def _csv_records(
    text: str, name: str, delimiter: str, texts: Collection[str | None]
) -> tuple[list[str], Iterator[Record]]:
    limit = csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(
            f"{name}, line {reader.line_num}: {error}; write it again as {delimiter!r}-separated"
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not lines:
        raise InputError(f"{name} is empty: its first line must name the columns")
    header = [cell.strip() for cell in lines[0][1]]
    repeated = next((column for column in header if header.count(column) > 1), None)
    if repeated is not None:
        raise InputError(f"{name}, line 1: two columns are called {repeated!r}: rename one")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{name}, line {line}: {len(cells)} cells for {len(header)} columns ({', '.join(header)}); put cells "
                f"with {delimiter!r} in them in quotes"
            )
    rows = [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]
    kinds = {column: str if column in texts else _kind([row[column] for _, row in rows]) for column in header}
    typed = ((line, {column: _cell(cell, kinds[column]) for column, cell in row.items()}) for line, row in rows)
    return header, typed


def _kind(column: Sequence[str]) -> type[int | float | str]:
    there = [cell.strip() for cell in column if cell.strip()]
    if not there or not all(map(_NUMBER.fullmatch, there)):
        return str
    return int if all(map(_WHOLE.fullmatch, there)) else float


def _cell(cell: str, kind: type[int | float | str]) -> int | float | str | None:
    return None if not cell.strip() else kind(cell)


def _json_records(text: str, name: str) -> tuple[list[str], Iterator[Record]]:
    records: list[Record] = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            cells = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {line}: no JSON ({error}); write one object in each line") from error
        if not isinstance(cells, dict):
            raise InputError(f"{name}, line {line}: it is no object of columns; write {{...}} in each line")
        records.append((line, cells))
    header = list(dict.fromkeys(column for _, cells in records for column in cells))
    return header, iter(records)


def _parquet_records(data: bytes, name: str) -> tuple[list[str], Iterator[Record]]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{name}: Parquet is read by pyarrow, which is not installed; install it, or write the table as .csv or "
            ".jsonl"
        ) from error
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        rows = table.to_pylist()
    except (pyarrow.lib.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{name} is no Parquet file ({error}): write it again") from error
    return list(table.column_names), iter(list(enumerate(rows, 1)))


# -- rows ------------------------------------------------------------------------------------------


def _path(cell: Any, place: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise InputError(f"{place}: {_shown(cell)} is no path of an image; write it relative to the folder of images")
    return clean_path(cell.strip())


def _row(
    name: str, line: int, cells: dict[str, Any], image: str, columns: TableColumns, length: int
) -> tuple[Row, int]:
    """Return a row and how many numbers the vectors of the table have; ``length`` is 0 where that is not known yet."""
    place, members = f"{name}, line {line}", dict[str, bytes]()
    category = None
    if columns.category is not None:
        category = _category(cells.get(columns.category), f"{place}, column {columns.category}")
    caption = None if columns.caption is None else cells.get(columns.caption)
    if caption is not None:
        members["txt"] = _caption(caption, f"{place}, column {columns.caption}")
    vector = None if columns.vector is None else cells.get(columns.vector)
    if vector is not None:
        members["npy"], length = _vector(vector, f"{place}, column {columns.vector}", length)
    used = {image, columns.category, columns.caption, columns.vector}
    fields = {column: _plain(value) for column, value in cells.items() if column not in used}
    if fields:
        members["json"] = _fields(fields, place)
    return Row(line, category, members), length


def _category(cell: Any, place: str) -> str:
    if isinstance(cell, bool) or not isinstance(cell, str | int) or not str(cell).strip():
        raise InputError(f"{place}: {_shown(cell)} names no class; give every row one, a text or a whole number")
    return str(cell).strip()


def _caption(cell: Any, place: str) -> bytes:
    if isinstance(cell, dict | list | bytes):
        raise InputError(f"{place}: {_shown(cell)} is no text; write a single one in each row")
    try:
        return str(cell).strip().encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: {error}; write the text as UTF-8") from error


def _vector(cell: Any, place: str, length: int) -> tuple[bytes, int]:
    """Return the .npy file of a cell, and how many numbers it holds."""
    try:
        if isinstance(cell, str):
            cell = [float(part) for part in _DIVIDER.split(cell.strip().strip("[]").strip()) if part]
        array = np.asarray(cell)
        if array.dtype.kind not in "biuf" or not array.size:
            raise ValueError("there are no numbers alone")
        with np.errstate(over="ignore"):
            numbers = np.atleast_1d(array).astype("<f4").ravel()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f'{place}: {_shown(cell)} is no list of numbers ({error}); write "1 2 3" or [1, 2, 3]'
        ) from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{place}: {_shown(cell)} holds a number that is not finite, or too large for float32")
    if length and len(numbers) != length:
        raise InputError(f"{place}: {len(numbers)} numbers, but {length} in the rows before; give all the same length")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, numbers, version=(1, 0), allow_pickle=False)
    return buffer.getvalue(), len(numbers)


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can say it: numbers that are not finite, which stand for nothing there, as None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(fields: dict[str, Any], place: str) -> bytes:
    def text_of(value: Any) -> str:
        if hasattr(value, "isoformat"):  # a date or time
            return str(value.isoformat())
        raise TypeError(f"a {type(value).__name__}")

    try:
        return json.dumps(fields, ensure_ascii=False, default=text_of, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{place}: its columns cannot be written as JSON ({error}); leave out what is no number, text or list"
        ) from error


def _shown(cell: Any) -> str:
    text = repr(cell)
    return f"{text[:60]}..." if len(text) > 60 else text
