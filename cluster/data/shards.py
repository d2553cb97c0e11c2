"""WebDataset tar shards: finding them, and where in them each image lies.

The conventions are WebDataset's (base_plus_ext): the key of a member is its path up to the first
dot of the file name, the extension what follows; members of one key form a sample. Read here are
one image (jpg, jpeg, png, webp, or an array, image.npy), an optional .cls, an integer as text, and where they are asked
for a vector (.npy), a text (.txt) and fields (.json); all other members are passed over, and nothing is ever unpickled.
Of tars that were joined by ``cat`` all are read.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from braceexpand import braceexpand

from cluster.data.settings import ARRAY_EXTENSION, IMAGE_EXTENSIONS, MEMBER_EXTENSIONS
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.errors import InputError

MAX_LABEL_BYTES = 64

_UNREAD_TAR = re.compile(r"\.tar\.(gz|bz2|xz|zst|lz4|Z)$|\.(tgz|tbz2?|txz|tzst)$|\.(?!tar$)(?i:tar)$")
_PACK_HINT = "`freqgan shards pack SRC DST` makes shards of a folder of images"
_END_BYTES = 2 * tarfile.BLOCKSIZE
_LARGE_RECORD_BYTES = 2**20
"""Of padding no tar writes more unless it is told to; what was cut off and filled with zeros has more."""

JOINED = "joined tars"
ZEROS = "MiB of zeros"

_LABEL = re.compile(rb"\s*[+-]?[0-9]+\s*")
_SINGLE = re.compile(r"\{([^{},]*)\}")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_SPECIAL = re.compile(r"[*?\[{]")
_LONGEST_KEY_BYTES = 1024
"""Of an object in a bucket; asking for a longer one is an error."""


@dataclass(frozen=True, slots=True)
class Member:
    """What lies beside an image under its key: ``size_bytes`` at ``offset`` of its shard, by one of MEMBER_EXTENSIONS.

    ``crc32`` is that of its bytes, None where nobody has computed it.
    """

    extension: str
    offset: int
    size_bytes: int
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: ``size_bytes`` at ``offset`` of its shard; ``label`` is None where there is no .cls.

    ``crc32`` is that of the image's bytes, None where nobody has computed it; ``members`` are what lies beside it.
    """

    key: str
    image_name: str
    offset: int
    size_bytes: int
    label: int | None
    crc32: int | None = None
    members: tuple[Member, ...] = ()

    def member(self, extension: str) -> Member | None:
        """Return what lies beside the image under ``extension``; None where nothing does."""
        return next((member for member in self.members if member.extension == extension), None)

    def parts(self) -> Iterator[tuple[str, int, int, int | None]]:
        """Yield name, offset, size in bytes and crc32 of the image, and then of everything beside it."""
        yield self.image_name, self.offset, self.size_bytes, self.crc32
        for member in self.members:
            yield f"{self.key}.{member.extension}", member.offset, member.size_bytes, member.crc32


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar: an absolute path or an s3:// URL, its size, and its samples in the order of the images.

    ``sha256`` is that of the whole file, None where nobody has computed it. ``others`` counts what else is in it by
    kind: members that are passed over (".seg.png", "without a key" and so on), JOINED, and ZEROS. ``knows_members`` is
    False for one that comes from an index of a format that passed over all that lies beside images.
    """

    url: str
    size_bytes: int
    samples: tuple[Sample, ...]
    sha256: str | None = None
    others: tuple[tuple[str, int], ...] = ()
    knows_members: bool = True


@dataclass(frozen=True, slots=True)
class ShardSet:
    """All shards of a data set, in a fixed order.

    ``classes`` are the names of labels 0, 1 ... by the folder in whose index they stand, of folders that name any;
    ``values`` are what the index of every folder says of what the stored numbers of its samples mean.
    """

    shards: tuple[Shard, ...]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def sample_count(self) -> int:
        """Samples of all shards together."""
        return sum(len(shard.samples) for shard in self.shards)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of labels 0, 1 ... in all folders.

        They are () where no folder names any, or two call one label differently.
        """
        return () if self.ambiguous_label is not None else max(self.classes.values(), key=len, default=())

    @property
    def ambiguous_label(self) -> int | None:
        """The first label that has two names, in the indexes of different folders; None where there is none."""
        for label, names in enumerate(zip_longest(*self.classes.values())):
            if len(set(names) - {None}) > 1:
                return label
        return None


def find_shards(data: str) -> list[str]:
    """URLs of the shards that ``data`` names, each once.

    ``data`` is a folder (all \\*.tar directly in it, sorted), one .tar, a pattern of ``*``, ``?``,
    ``[...]`` within the parts of a path (sorted), or "train-{00000..00003}.tar" and "{a,b}.tar" (in
    that order); local or under s3://. What is there under the very name, or as far as it goes, is
    taken for no pattern. InputError when nothing is found, saying what is there.
    """
    there = _length_there(data)
    found = [url for rest in _expand_braces(data[there:]) for url in _match(data[:there] + rest)]
    return list(dict.fromkeys(found))


def split_extension(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member's name; None without a dot or with a hidden file's leading dot."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension) if stem and dot else None


def _expand_braces(pattern: str) -> Iterator[str]:
    """Yield what the braces of ``pattern`` stand for, as a shell does; one that is not closed is a letter.

    Unlike in a shell a single name in braces stands for itself, for a list of names may have only one.
    """
    for first, last in _RANGE.findall(pattern):
        if int(first) > int(last):
            raise InputError(
                f"{{{first}..{last}}} in {pattern} counts downwards and names no shard: write the lower number first"
            )
    several = _SINGLE.sub(lambda match: match[0] if _RANGE.fullmatch(match[0]) else match[1], pattern)
    try:
        yield from braceexpand(several, escape=False)
    except ValueError:
        yield pattern


def _length_there(data: str) -> int:
    """Return how many characters of ``data``, up to a slash or to the end, are a name and no pattern.

    They are if there is something under this very name, or if nothing in them could be a pattern.
    """
    special = _SPECIAL.search(data)
    if special is None:
        return len(data)
    slashes = [match.start() for match in re.finditer("/", data) if match.start() > special.start()]
    for end in (len(data), *reversed(slashes)):
        if _is_there(data[:end]):
            return end
    return data.rfind("/", 0, special.start()) + 1


def _is_there(url: str) -> bool:
    folder = open_folder(url)
    if folder.is_local:
        return os.path.exists(folder.url)
    if len(url.encode(errors="surrogateescape")) > _LONGEST_KEY_BYTES:
        return False
    return (url.endswith(".tar") and names_object(url)) or folder.is_there()


def names_object(url: str) -> bool:
    """Return whether an object, or a file, is there under the very name ``url``."""
    folder, name = split_object(url)
    return folder.exists(name)


def _match(pattern: str) -> list[str]:
    there = _length_there(pattern)
    rest = pattern[there:].strip("/")
    if rest:
        folder = open_folder(pattern[:there] or ".")
        found = _match_parts(folder, rest.split("/"))
        if not found:
            raise InputError(f"no shard matches {pattern}; {_contents(folder)}")
        return found
    if pattern.endswith(".tar"):
        folder, name = split_object(pattern)
        if folder.exists(name):
            return [f"{folder.url}/{name}"]
    return _list_folder(open_folder(pattern))


def _match_parts(folder: Folder, parts: list[str]) -> list[str]:
    if len(parts) == 1:
        return [f"{folder.url}/{name}" for name in matching_names(folder.files(), parts[0])]
    matching = matching_names(folder.subfolders(), parts[0])
    return [url for name in matching for url in _match_parts(folder.child(name), parts[1:])]


def matching_names(names: Collection[str], pattern: str) -> list[str]:
    """Return those of ``names`` that match; the one that is the pattern itself alone, where there is one."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def _list_folder(folder: Folder) -> list[str]:
    files = folder.files()
    names = [name for name in files if name.endswith(".tar")]
    unread = [name for name in files if _UNREAD_TAR.search(name)]
    if unread:
        raise InputError(
            f"{folder.url} holds tars that are compressed or not called .tar ({len(unread)}, the first is "
            f"{unread[0]}): uncompress and rename them, or move them elsewhere"
        )
    if names:
        return [f"{folder.url}/{name}" for name in names]
    if folder.is_local and os.path.isfile(folder.url):
        raise InputError(f"{folder.url} is a file that does not end in .tar; {_PACK_HINT}")
    if folder.url.endswith(".tar"):
        parent = split_object(folder.url)[0]
        raise InputError(f"no such shard: {folder.url}; {_contents(parent)}; check its name")
    raise InputError(f"no .tar shards in {folder.url}; {_contents(folder)}; {_PACK_HINT}")


def _contents(folder: Folder) -> str:
    """Return what lies in ``folder``, for an error: "it holds 120 .jpg, 3 .txt, 2 folders"."""
    kinds = Counter(Path(name).suffix or "without extension" for name in folder.files())
    folders = len(folder.subfolders())
    counts = [f"{count} {kind}" for kind, count in kinds.most_common(5)] + [f"{folders} folders"] * bool(folders)
    if counts:
        return f"{folder.url} holds {', '.join(counts)}"
    exists = folder.is_local and os.path.isdir(folder.url)
    return f"{folder.url} is empty" if exists else f"there is no folder {folder.url}"


@dataclass
class _Members:
    """What the walk has seen of one shard."""

    url: str
    images: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    beside: dict[str, dict[str, Member]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, member: tarfile.TarInfo, file: BinaryIO) -> None:
        key, extension = split_extension(member.name) or (member.name, "")
        kind = extension.lower()
        if not member.isreg() or member.issparse():
            self.others["links, devices and sparse files"] += not member.isdir()
        elif kind in IMAGE_EXTENSIONS or kind == ARRAY_EXTENSION:
            if key in self.images:
                other = self.images[key][0]
                raise InputError(f"{self.url} has two images of key {key}, {other} and {member.name}: rename one")
            self.images[key] = (member.name, member.offset_data, member.size)
        elif kind == "cls":
            label = _read_label(self.url, member, file)
            if self.labels.setdefault(key, label) != label:
                raise InputError(f"{self.url} has two labels of key {key}, {self.labels[key]} and {label}: remove one")
        elif kind in MEMBER_EXTENSIONS:
            self._add_beside(key, Member(kind, member.offset_data, member.size))
        else:
            self.others[f".{extension}" if extension else "without a key"] += 1

    def _add_beside(self, key: str, member: Member) -> None:
        if self.beside.setdefault(key, {}).setdefault(member.extension, member) is not member:
            raise InputError(f"{self.url} has two members {key}.{member.extension}: rename or remove one")

    def counts(self) -> tuple[tuple[str, int], ...]:
        lonely = (kinds for key, kinds in self.beside.items() if key not in self.images)
        others = self.others + Counter(f".{kind}" for kinds in lonely for kind in kinds)
        return tuple((kind, count) for kind, count in others.most_common() if count)

    def samples(self) -> tuple[Sample, ...]:
        if not self.images:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts()[:5]) or "no such members"
            known = ", .".join((*IMAGE_EXTENSIONS, ARRAY_EXTENSION))
            raise InputError(f"{self.url} has no images (.{known}) but {kinds}: repack or remove it")
        return tuple(
            Sample(key, *where, self.labels.get(key), members=tuple(self.beside.get(key, {}).values()))
            for key, where in self.images.items()
        )


def read_shard(url: str) -> Shard:
    """Walks the headers of the tar once, and of those joined to it; InputError where it is damaged or has no images."""
    folder, name = split_object(url)
    members, size_bytes = _Members(url), folder.size(name)
    with folder.open(name) as file:
        _walk_all(members, size_bytes, 0, file)
    return Shard(url, size_bytes, members.samples(), others=members.counts())


def images_behind(shard: Shard, file: BinaryIO) -> int:
    """Return how many images lie in ``file`` behind the last that ``shard`` names; InputError for damage there."""
    members = _Members(shard.url)
    end = max(sample.offset + sample.size_bytes for sample in shard.samples)
    start: int | None = end + -end % tarfile.BLOCKSIZE
    file.seek(start or 0)
    if not any(file.read(tarfile.BLOCKSIZE)):
        start = _next_tar(members, shard.size_bytes, start or 0, file)
    _walk_all(members, shard.size_bytes, start, file)
    return len(members.images)


def _walk_all(members: _Members, size_bytes: int, start: int | None, file: BinaryIO) -> None:
    """Read the headers from ``start`` on, if it is any, and those of all tars that follow."""
    while start is not None:
        end = _walk(members, size_bytes, start, file)
        start = _next_tar(members, size_bytes, end, file)
        members.others[JOINED] += start is not None


def _walk(members: _Members, size_bytes: int, start: int, file: BinaryIO) -> int:
    """Read the headers of the tar that begins at ``start``; return the offset of what ends it."""
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                members.add(member, file)
            end = tar.offset
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _damage(members.url, size_bytes, min(file.tell(), size_bytes), str(error)) from error
    if 0 < start == end:
        raise _damage(members.url, size_bytes, end, "data follows the end of the tar")
    return end


def _read_label(url: str, member: tarfile.TarInfo, file: BinaryIO) -> int:
    file.seek(member.offset_data)
    text = file.read(min(member.size, MAX_LABEL_BYTES + 1))
    if len(text) > MAX_LABEL_BYTES or not _LABEL.fullmatch(text):
        raise InputError(
            f"{member.name} in {url} holds {text!r}: a label is an integer written as text; write it so or remove it"
        )
    return int(text)


def _next_tar(members: _Members, size_bytes: int, end: int, file: BinaryIO) -> int | None:
    """Return the offset of the tar that follows zeros of any length, or None where they reach to the end of the file.

    A whole tar ends with two zero blocks; tarfile stops without a word at a header it cannot read.
    """
    file.seek(end)
    zeros_end, tail = end, file.read(_END_BYTES + tarfile.RECORDSIZE)
    if len(tail) < _END_BYTES:
        raise _damage(members.url, size_bytes, end, "the two zero blocks at its end are missing")
    if any(tail[:_END_BYTES]):
        raise _damage(members.url, size_bytes, end, "no readable header there")
    while tail:
        zeros = len(tail) - len(tail.lstrip(b"\0"))
        zeros_end += zeros
        if zeros < len(tail):
            return zeros_end - zeros_end % tarfile.BLOCKSIZE
        tail = file.read(_LARGE_RECORD_BYTES)
    members.others[ZEROS] += (zeros_end - end) // (_LARGE_RECORD_BYTES + 1)
    return None


def _damage(url: str, size_bytes: int, offset: int, cause: str) -> InputError:
    if offset <= tarfile.BLOCKSIZE:
        return InputError(f"{url} is no uncompressed tar ({cause}): replace or remove it; {_PACK_HINT}")
    return InputError(f"{url} of {size_bytes} bytes is cut off or damaged at offset {offset} ({cause}): fetch it again")
