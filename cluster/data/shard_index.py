"""``index.json`` beside shards: what each of them is known to hold, so that nothing else is taken for it.

For every shard its size and sha256, for every sample where its image lies, and what lies beside it, with their crc32.
What has no entry is read from the headers of the tar, and is as trustworthy as these.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from cluster.data.decoding import decode_image
from cluster.data.shards import (
    Member,
    Sample,
    Shard,
    ShardSet,
    find_shards,
    images_behind,
    matching_names,
    names_object,
    read_shard,
)
from cluster.formats.arrays import NPY_MAGIC, decode_npy
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.errors import FreqganError, InputError, RunError

INDEX_NAME = "index.json"
FORMAT = 3
"""Indexes without one, the first, know shards and not what they hold; those of format 2 know images and labels."""
WITHOUT_MEMBERS = 2

Progress = Callable[[int, int], None]

_WILDCARD = re.compile(r"[*?\[]")


class DamagedError(RunError):
    """A shard, or an image in it, is not what was indexed, however often it is fetched."""


def build_index(data: str) -> ShardSet:
    """Return the shards that ``data`` names, as the index beside them has them.

    How they are named :func:`cluster.data.shards.find_shards` says.

    Shards that no index knows are walked, header by header. InputError for a damaged one, or a damaged index. A bucket
    is not listed where its index names shards: what was added since is found once it is indexed.
    """
    if indexed := _from_index_alone(data):
        return indexed
    known: dict[str, _Known] = {}
    shards = []
    for url in find_shards(data):
        folder, name = split_object(url)
        if folder.url not in known:
            known[folder.url] = _known(folder)
        shards.append(known[folder.url].shards.get(name) or read_shard(url))
    classes = {url: index.classes for url, index in known.items() if index.classes}
    return ShardSet(tuple(shards), classes, {url: index.values for url, index in known.items()})


def _from_index_alone(data: str) -> ShardSet | None:
    """Return the shards of a folder of a bucket, as its index has them.

    Of a pattern of names they are those that it matches.
    """
    url = data.rstrip("/")
    if not data.startswith("s3://"):
        return None
    if not url.endswith(".tar") and (index := _matching(url, "*.tar")):
        return index
    top, _, last = url.rpartition("/")
    if not _WILDCARD.search(last) or "{" in last:
        return None
    index = _matching(top, last)
    if index is None or (last != split_object(index.shards[0].url)[1] and names_object(url)):
        return None
    return index


def _matching(folder_url: str, pattern: str) -> ShardSet | None:
    folder = open_folder(folder_url)
    known = _known(folder)
    names = matching_names(sorted(known.shards), pattern)
    classes = {folder.url: known.classes} if known.classes else {}
    shards = tuple(known.shards[name] for name in names)
    return ShardSet(shards, classes, {folder.url: known.values}) if names else None


@dataclass(frozen=True)
class _Known:
    """What an index knows: the shards by name, the names of the classes, and what the values of all samples mean."""

    shards: dict[str, Shard]
    classes: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


def read_index(folder: Folder) -> dict[str, Shard]:
    """Return the shards that the index of ``folder`` describes, by name; none where there is no such index.

    InputError when the file is no index.
    """
    return _known(folder).shards


def _known(folder: Folder) -> _Known:
    content = _content(folder)
    classes = content.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise _no_index(folder, "classes are no list of names")
    values = content.get("values", {})
    if not isinstance(values, dict):
        raise _no_index(folder, "values are no object")
    if content.get("format") not in (WITHOUT_MEMBERS, FORMAT):
        return _Known({}, tuple(classes), values)
    try:
        known = {entry["shard"]: _shard(folder, entry, content["format"]) for entry in content["shards"]}
        return _Known(known, tuple(classes), values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_index(folder, f"{type(error).__name__}: {error}") from error


def read_values(folder: Folder) -> Mapping[str, Any]:
    """Return what the index of ``folder`` says of the values of all samples: offset, slope, unit; {} for nothing.

    InputError when the file is no index.
    """
    return _known(folder).values


def write_index(
    folder: Folder, shards: Sequence[Shard], classes: Sequence[str], values: Mapping[str, Any] | None = None
) -> None:
    """Replace the index of ``folder``, where ``shards`` lie; ``values`` say what those of all samples mean."""
    entries = [
        {
            "shard": shard.url.rpartition("/")[2],
            "samples": len(shard.samples),
            "bytes": shard.size_bytes,
            "sha256": shard.sha256,
            "others": dict(shard.others),
            **({} if shard.knows_members else {"format": WITHOUT_MEMBERS}),
            "members": [_fields(sample) for sample in shard.samples],
        }
        for shard in shards
    ]
    shared = {"values": dict(values)} if values else {}
    content = {"format": FORMAT, "classes": list(classes), **shared, "shards": entries}
    text = json.dumps(content, separators=(",", ":"))
    folder.write(INDEX_NAME, text.replace('{"shard":', '\n{"shard":').encode())


def _fields(sample: Sample) -> tuple[Any, ...]:
    """Return what an index says of ``sample``: the fields, with those beside it by extension where there are any."""
    *fields, _ = astuple(sample)
    members = {kind: where for kind, *where in map(astuple, sample.members)}
    return (*fields, members) if members else tuple(fields)


def index_shards(data: str, progress: Progress = lambda done, total: None) -> list[Shard]:
    """Read all shards that ``data`` names, write an index beside them, and return them.

    Entries of other shards, the names of the classes, and what values mean stay as they were.
    """
    urls = find_shards(data)
    described: dict[str, dict[str, Shard]] = {}
    for number, url in enumerate(urls, 1):
        folder, name = split_object(url)
        described.setdefault(folder.url, {})[name] = described_shard(url)
        progress(number, len(urls))
    for folder_url, shards in described.items():
        folder = open_folder(folder_url)
        known = _known(folder)
        merged = known.shards | shards
        write_index(folder, [merged[name] for name in sorted(merged)], known.classes, known.values)
    return [described[split_object(url)[0].url][split_object(url)[1]] for url in urls]


def described_shard(url: str) -> Shard:
    """Return the shard with the checksums of what it holds now, every image having been decoded once."""
    with mapped(url) as data:
        return with_checksums(read_shard(url), data, decode=True)


def with_checksums(shard: Shard, data: mmap.mmap, *, decode: bool = False) -> Shard:
    """Return ``shard``, whose bytes are ``data``, with sha256 and crc32.

    ``decode`` makes sure that each image can be decoded.
    """
    samples = []
    for sample in shard.samples:
        image = data[sample.offset : sample.offset + sample.size_bytes]
        if decode:
            check_image(image, f"{sample.image_name} in {shard.url}")
        members = tuple(
            replace(member, crc32=zlib.crc32(data[member.offset : member.offset + member.size_bytes]))
            for member in sample.members
        )
        samples.append(replace(sample, crc32=zlib.crc32(image), members=members))
    return replace(shard, samples=tuple(samples), sha256=hashlib.sha256(data).hexdigest())


def check_image(data: bytes, name: str) -> None:
    """Raise InputError naming ``name`` unless ``data`` is an image that can be decoded, or an array of pixels."""
    if data.startswith(NPY_MAGIC):
        decode_npy(data, name)
    else:
        decode_image(data, name)


def damage_of(url: str, known: Shard | None) -> str | None:
    """Return what is wrong with a shard, or None.

    It is held against its index entry where there is one, else it is looked at as far as it shows.
    """
    try:
        if known is None:
            described_shard(url)
            return None
        with mapped(url) as data:
            return difference(known, data) or _overlooked(known, data)
    except FreqganError as error:
        return str(error)


def _overlooked(shard: Shard, data: mmap.mmap) -> str | None:
    """Return that there are images which the index does not know; None where it knows all.

    Such an index was written when only the first of joined tars was read.
    """
    count = images_behind(shard, cast(BinaryIO, data))
    return f"{count} images in it are not in the index: index it again (`freqgan shards index`)" if count else None


def difference(shard: Shard, data: mmap.mmap) -> str | None:
    """Return how ``data`` differs from the shard that was indexed, and in which image first; None where it does not."""
    if len(data) != shard.size_bytes:
        return f"{len(data)} bytes, but {shard.size_bytes} when it was indexed"
    if shard.sha256 is None or hashlib.sha256(data).hexdigest() == shard.sha256:
        return None
    for sample in shard.samples:
        for name, offset, size_bytes, crc32 in sample.parts():
            if crc32 is not None and zlib.crc32(data[offset : offset + size_bytes]) != crc32:
                return f"{name} at offset {offset} is not what was indexed, perhaps others as well"
    return "no image, but a header, label or padding is not what was indexed"


@contextmanager
def mapped(url: str) -> Iterator[mmap.mmap]:
    """Read all bytes of a shard; those of a bucket by way of a temporary file."""
    folder, name = split_object(url)
    with tempfile.TemporaryDirectory(prefix="freqgan-shard-") as temporary:
        path = Path(folder.url) / name if folder.is_local else Path(temporary) / "shard.tar"
        if not folder.is_local:
            folder.download(name, path)
        if folder.size(name) == 0:
            raise InputError(f"{url} is empty: replace or remove it")
        with (
            open_folder(str(path.parent)).open(path.name) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            yield data


def verify_shards(data: str, progress: Progress = lambda done, total: None) -> list[tuple[str, bool, str | None]]:
    """Return (URL, whether an index knows it, what is wrong with it) of every shard that ``data`` names.

    A shard that an index knows and that is not there any more is wrong, too, where ``data`` is its folder.
    """
    urls = _shards_or_none(data)
    folders = (split_object(url)[0] for url in urls) if urls else (open_folder(data),)
    indexes = {folder.url: read_index(folder) for folder in folders}
    missing = [
        f"{folder}/{name}"
        for folder, shards in indexes.items()
        for name in shards
        if open_folder(data).url == folder and f"{folder}/{name}" not in urls
    ]
    rows: list[tuple[str, bool, str | None]] = []
    for number, url in enumerate(urls, 1):
        folder, name = split_object(url)
        known = indexes[folder.url].get(name)
        rows.append((url, known is not None, damage_of(url, known)))
        progress(number, len(urls))
    return rows + [(url, True, "it is in the index and not there") for url in missing]


def _shards_or_none(data: str) -> list[str]:
    """Return the shards that ``data`` names.

    There are none where it is a folder whose index names some, and all of them are gone.
    """
    try:
        return find_shards(data)
    except InputError:
        if not read_index(open_folder(data)):
            raise
        return []


def damaged(shard: Shard, what: str) -> DamagedError:
    """Return the error of a shard that stays damaged however often it is read."""
    return DamagedError(
        f"{shard.url} is damaged: {what}. Restore it, or index the data again if it was replaced on purpose "
        "(`freqgan shards index`); `freqgan shards verify` names every shard that is damaged"
    )


def _content(folder: Folder) -> dict[str, Any]:
    if not folder.exists(INDEX_NAME):
        return {}
    try:
        content = json.loads(folder.read(INDEX_NAME))
    except ValueError as error:
        raise _no_index(folder, str(error)) from error
    if not isinstance(content, dict):
        raise _no_index(folder, "it is a list or a single value")
    return content


def _no_index(folder: Folder, why: str) -> InputError:
    return InputError(
        f"{folder.url}/{INDEX_NAME} is no index of shards ({why}); delete it, or write it anew: "
        f"`freqgan shards index {folder.url}`"
    )


def _sample(
    key: str,
    name: str,
    offset: int,
    size: int,
    label: int | None,
    crc: int,
    members: Mapping[str, list[int]] | None = None,
) -> Sample:
    beside = tuple(Member(str(kind), *where) for kind, where in (members or {}).items())
    return Sample(key, name, offset, size, label, crc, beside)


def _shard(folder: Folder, entry: Mapping[str, Any], file_format: int) -> Shard:
    samples = tuple(_sample(*fields) for fields in entry["members"])
    if len(samples) != entry["samples"] or not samples:
        raise ValueError(f"{entry['shard']} has {len(samples)} members and {entry['samples']} samples")
    others = tuple((str(kind), int(count)) for kind, count in entry.get("others", {}).items())
    url, knows_members = f"{folder.url}/{entry['shard']}", entry.get("format", file_format) != WITHOUT_MEMBERS
    return Shard(url, int(entry["bytes"]), samples, str(entry["sha256"]), others, knows_members)
