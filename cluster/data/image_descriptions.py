"""What is known of the images of a folder besides their pixels: from a table, and from files of the same name."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from cluster.data.image_folders import ImageFiles, Listing, folder_labels, numbered_classes
from cluster.data.image_tables import FOUND_TABLES, Row, TableColumns, clean_path, names_images, read_table
from cluster.data.image_trees import is_hidden
from cluster.data.settings import MEMBER_EXTENSIONS
from cluster.data.source_formats import Sources, list_sources
from cluster.formats.source_format import STILLS, PieceOptions
from cluster.storage.folder import open_folder, split_object
from freqgan.errors import InputError


@dataclass(frozen=True)
class Description:
    """The images that are to be packed, and what lies beside them.

    Attributes:
        images: their names, sorted; those of videos and other sources as well.
        labels: of them; None without classes.
        classes: the names of labels 0, 1 ...
        rows: of the table by image; empty without a table.
        files: beside images, by image and extension; those that no row replaces.
        table: its name; "" without one.
        unnamed: images that the table does not name, and that are not packed.
        lost: paths of rows that name no image.
        others: how many files are neither images nor used.
        sources: which of them are packed by way of a format.

    """

    images: Sequence[str]
    labels: Sequence[int] | None
    classes: Sequence[str]
    rows: Mapping[str, Row] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    table: str = ""
    unnamed: Sequence[str] = ()
    lost: Sequence[str] = ()
    others: int = 0
    sources: Sources = field(default_factory=Sources)

    def members(self, image: str, source: ImageFiles) -> dict[str, bytes]:
        """Return what is to lie beside ``image``, by extension."""
        named = {extension: source.read(name) for extension, name in self.files.get(image, {}).items()}
        return named | (dict(self.rows[image].members) if image in self.rows else {})

    def counts(self) -> dict[str, int]:
        """Return how many images have what beside them, by extension."""
        counts = {}
        for extension in MEMBER_EXTENSIONS:
            in_rows = {image for image, row in self.rows.items() if extension in row.members}
            counts[extension] = len(in_rows | {image for image, files in self.files.items() if extension in files})
        return {extension: count for extension, count in counts.items() if count}


def describe_images(
    files: ImageFiles, table: str | None, columns: TableColumns, options: PieceOptions = STILLS
) -> tuple[Listing, Description]:
    """Return the images among ``files``, and what is known of them.

    Args:
        files: of a folder or a zip.
        table: where a table lies, or its name among ``files``; None to use a metadata.csv or metadata.jsonl that names
            images, if there is one.
        columns: of the table.
        options: of videos and other sources.

    Raises:
        InputError: no images, no such table, or one that cannot be used.

    """
    name, data = _table(files, table, columns)
    listing, sources = list_sources(files, options, with_classes=not name)
    if not name:
        return listing, _described(files, listing, sources, listing.images, listing.labels, listing.classes)
    inside = posixpath.dirname(name) if name in files.names else ""
    tops = ("", inside, _common_folder(listing.images))
    rows, lost = _rows_by_image(read_table(data, name, columns), set(listing.images), tops, name)
    if not rows:
        raise InputError(
            f"{name} names no image of {files.url}: its first row is {lost[0]}, and the first image is "
            f"{listing.images[0]}; write paths relative to the folder of images, or say their column by --image-column"
        )
    images = [image for image in listing.images if image in rows]
    if columns.category is None:
        labels, classes = folder_labels(images, files.url)
    else:
        labels, classes = numbered_classes([rows[image].category or "" for image in images], name)
    return listing, _described(files, listing, sources, images, labels, classes, rows, name, lost)


def _rows_by_image(
    table: Mapping[str, Row], images: Collection[str], tops: Sequence[str], name: str
) -> tuple[dict[str, Row], list[str]]:
    """Return the rows by the image that they name, relative to one of the folders ``tops``; and paths of no image."""
    rows, lost = dict[str, Row](), list[str]()
    for path, row in table.items():
        place = next((place for top in tops if (place := posixpath.join(top, path)) in images), None)
        if place is None:
            lost.append(path)
        elif place in rows:
            raise InputError(
                f"{name}, line {row.line}: {place} is named by line {rows[place].line} already: remove one"
            )
        else:
            rows[place] = row
    return rows, lost


def _described(
    files: ImageFiles,
    listing: Listing,
    sources: Sources,
    images: Sequence[str],
    labels: Sequence[int] | None,
    classes: Sequence[str],
    rows: Mapping[str, Row] | None = None,
    table: str = "",
    lost: Sequence[str] = (),
) -> Description:
    beside = _files_beside(files, sources, images, rows or {})
    used = {name for named in beside.values() for name in named.values()} | ({table} & set(files.names))
    unnamed = tuple(sorted(set(listing.images) - set(images)))
    others = listing.others - len(used)
    return Description(images, labels, classes, rows or {}, beside, table, unnamed, lost, others, sources)


def _files_beside(
    files: ImageFiles, sources: Sources, images: Sequence[str], rows: Mapping[str, Row]
) -> dict[str, dict[str, str]]:
    """Return the files with the name of an image but for .txt, .npy or .json, by image and extension.

    What a row says of an image takes the place of a file.
    """
    named: dict[str, dict[str, str]] = {}
    packed = sources.files()
    for name in files.names:
        stem, extension = posixpath.splitext(name)
        kind = extension[1:].lower()
        if kind in MEMBER_EXTENSIONS and not is_hidden(name) and name not in packed:
            named.setdefault(stem, {}).setdefault(kind, name)
    beside = {}
    for image in images:
        row = rows[image].members if image in rows else {}
        there = named.get(sources.stem(image), {})
        left = {kind: name for kind, name in there.items() if kind not in row}
        if left:
            beside[image] = left
    return beside


def _table(files: ImageFiles, table: str | None, columns: TableColumns) -> tuple[str, bytes]:
    """Return the name and the bytes of the table; "" and none without one."""
    if table is not None:
        folder, name = split_object(table)
        if folder.exists(name):
            inside = f"{folder.url}/{name}".removeprefix(f"{open_folder(files.url).url}/")
            return inside if inside in files.names else table, folder.read(name)
        if clean_path(table) in files.names:
            return clean_path(table), files.read(clean_path(table))
        raise InputError(f"--table {table}: there is no such file, and none of this name in {files.url}")
    top = _common_folder([name for name in files.names if not is_hidden(name)])
    for name in (posixpath.join(top, name) for name in FOUND_TABLES):
        if name in files.names:
            data = files.read(name)
            if columns or names_images(data, name):
                return name, data
    if columns:
        raise InputError(
            f"columns of a table were named, and there is none: give it by --table, or put {FOUND_TABLES[0]} into "
            f"{files.url}"
        )
    return "", b""


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that holds all files ``names``, as in many a zip; "" where there is none."""
    folders = [name.split("/")[:-1] for name in names]
    if not folders:
        return ""
    pairs = zip(min(folders), max(folders), strict=False)  # all others lie between these two
    return "/".join(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
