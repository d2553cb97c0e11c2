"""Packing images into WebDataset shards: the only file that uses webdataset.

The source is a folder or a zip, local or under s3://. Image bytes are copied untouched, after each
has been decoded once to see that it can be. The same images give byte-equal shards: names are
sorted, then permuted by a fixed seed so that classes mix, and times and owners are constants.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

import webdataset

from cluster.images import IMAGE_EXTENSIONS, decode_image, image_format
from cluster.order import permutation
from cluster.storage import Folder, open_folder, split_object
from freqgan.errors import InputError, RunError

INDEX_NAME = "index.json"
SHARD_SIZE_BYTES = 64 * 2**20
SHARD_SAMPLES = 10_000
MAX_IMAGE_BYTES = 256 * 2**20

_SHUFFLE_SEED = 0
_OTHER_FORMATS = re.compile(
    "avif|bmp|cr2|dng|eps|exr|gif|hdr|heic|heif|ico|j2k|jfif|jp2|jpe|jxl|nef|pbm|pcx|pgm|pnm|ppm|psd|raw|svg|tga|tiff?|xpm"
)
_GIVE = "give a folder or a .zip of JPEG, PNG or WebP images"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PackReport:
    """What was packed; ``hidden`` and ``others`` count the files passed over (dot files, and no images)."""

    images: int
    shards: int
    size_bytes: int
    classes: list[str]
    hidden: int
    others: int


class PackedShard(TypedDict):
    """One entry of index.json."""

    shard: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Source:
    """Files of a folder or a zip: relative names, and how to read one."""

    url: str
    names: list[str]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class _Listing:
    """The images among a source's files, sorted, and their classes; no classes without sub-folders."""

    images: list[str]
    labels: list[int] | None
    classes: list[str]
    hidden: int
    others: int


def pack(
    source: str,
    destination: str,
    *,
    shard_size_bytes: int = SHARD_SIZE_BYTES,
    shard_samples: int = SHARD_SAMPLES,
    progress: Progress = lambda done, total: None,
) -> PackReport:
    """Write the images of ``source`` to shard-00000.tar, ... and index.json in ``destination``.

    Images in sub-folders get the number of their sub-folder, by name, as label; folders that hold
    everything else (as in many a zip) are passed through first. A shard ends with the sample that
    brings its images to ``shard_size_bytes`` or its count to ``shard_samples``. Shards appear under
    their names only when all are written. InputError for what cannot be packed, naming the file.
    """
    if shard_size_bytes < 1 or shard_samples < 1:
        raise InputError(f"shards of {shard_samples} samples and {shard_size_bytes} bytes: both must be at least 1")
    target = open_folder(destination)
    target = open_folder(destination)
    with _open_source(source) as files:
        listing = _list_images(files)
        _check_destination(target)
        staging_name = f".packing-{secrets.token_hex(4)}"
        staging = target.child(staging_name)
        try:
            shards = _write_shards(_samples(files, listing, progress), staging, shard_size_bytes, shard_samples)
            for shard in shards:
                target.rename(f"{staging_name}/{shard['shard']}", shard["shard"])
        finally:
            staging.delete_tree()
    target.write(INDEX_NAME, json.dumps({"classes": listing.classes, "shards": shards}, indent=1).encode())
    size_bytes = sum(shard["bytes"] for shard in shards)
    return PackReport(len(listing.images), len(shards), size_bytes, listing.classes, listing.hidden, listing.others)


@contextmanager
def _open_source(source: str) -> Iterator[_Source]:
    if source.lower().endswith(".zip"):
        with _open_zip(source) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            yield _Source(source, sorted(set(names)), lambda name: _read_zipped(archive, name, source))
        return
    folder = open_folder(source)
    names = folder.list()
    if not names:
        path = Path(folder.url)
        if folder.is_local and path.exists():
            raise InputError(f"{source} is {'an empty folder' if path.is_dir() else 'no folder'}: {_GIVE}")
        raise InputError(f"there is no folder {source}: {_GIVE}")
    yield _Source(source, names, folder.read)


@contextmanager
def _open_zip(source: str) -> Iterator[zipfile.ZipFile]:
    """A zip in a bucket is copied whole first: images are read in a mixed order."""
    folder, name = split_object(source)
    if not folder.exists(name):
        raise InputError(f"there is no file {source}: {_GIVE}")
    with tempfile.TemporaryDirectory(prefix="freqgan-zip-") as temporary:
        if not folder.is_local:
            folder.download(name, Path(temporary) / name)
            folder = open_folder(temporary)
        with folder.open(name) as file:
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise InputError(f"{source} is no zip, or is cut off ({error}): fetch it again") from error
            yield archive


def _read_zipped(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
    size_bytes = archive.getinfo(name).file_size
    if size_bytes > MAX_IMAGE_BYTES:
        raise InputError(f"{name} in {source} has {size_bytes} bytes, more than {MAX_IMAGE_BYTES}: remove it")
    try:
        return archive.read(name)
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError (its subclass).
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{name} in {source} cannot be unzipped ({error}): make the zip again") from error


def _list_images(files: _Source) -> _Listing:
    shown = [name for name in files.names if not _is_hidden(name)]
    refused = [name for name in shown if _OTHER_FORMATS.fullmatch(_extension(name))]
    if refused:
        raise InputError(
            f"{files.url} holds {len(refused)} images that are no JPEG, PNG or WebP, the first is {refused[0]}: "
            "convert or remove them"
        )
    images = sorted(name for name in shown if _extension(name) in IMAGE_EXTENSIONS)
    if not images:
        wanted = ", ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
        raise InputError(f"{files.url} holds no images ({wanted}) but {len(files.names)} other files: {_GIVE}")
    labels, classes = _label(images, files.url)
    return _Listing(images, labels, classes, len(files.names) - len(shown), len(shown) - len(images))


def _is_hidden(name: str) -> bool:
    """Dot files and the resource forks that macOS adds to copies and zips (AppleDouble)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()


def _label(images: list[str], url: str) -> tuple[list[int] | None, list[str]]:
    """Labels and classes by the first folder in which the names differ."""
    parts = [PurePosixPath(name).parts for name in images]
    while min(map(len, parts)) > 1 and len({names[0] for names in parts}) == 1:
        parts = [names[1:] for names in parts]
    loose = [image for image, names in zip(images, parts, strict=True) if len(names) == 1]
    if len(loose) == len(images):
        return None, []
    if loose:
        raise InputError(
            f"{url} holds {len(loose)} images beside its class folders, the first is {loose[0]}: "
            "put every image in the folder of its class, or all in one folder"
        )
    classes = sorted({names[0] for names in parts})
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[names[0]] for names in parts], classes


def _check_destination(target: Folder) -> None:
    taken = [name for name in target.files() if name.endswith(".tar") or name == INDEX_NAME]
    if taken:
        found = f"{len(taken)} files of shards ({', '.join(taken[:3])})"
        raise InputError(f"{target.url} already holds {found}: name an empty folder")
    target.check_writable()


def _samples(files: _Source, listing: _Listing, progress: Progress) -> Iterator[dict[str, str | bytes]]:
    """The samples in the order of writing, as webdataset wants them; each image is decoded once, to check it."""
    total = len(listing.images)
    for number, index in enumerate(permutation(total, _SHUFFLE_SEED, "pack").tolist()):
        name = listing.images[index]
        data = files.read(name)
        decode_image(data, f"{name} in {files.url}")
        sample: dict[str, str | bytes] = {"__key__": f"{number:08d}", image_format(data) or "": data}
        if listing.labels is not None:
            sample["cls"] = str(listing.labels[index]).encode()
        yield sample
        progress(number + 1, total)


def _write_shards(
    samples: Iterator[dict[str, str | bytes]], staging: Folder, shard_size_bytes: int, shard_samples: int
) -> list[PackedShard]:
    """Write all shards below ``staging``; those for a bucket pass through a temporary file, one at a time."""
    shards: list[PackedShard] = []

    def finish(path: str) -> None:
        name, size_bytes = Path(path).name, Path(path).stat().st_size
        shards.append(PackedShard(shard=name, samples=writer.count, bytes=size_bytes, sha256=_sha256(Path(path))))
        if not staging.is_local:
            staging.upload(Path(path), name)
            Path(path).unlink()

    with tempfile.TemporaryDirectory(prefix="freqgan-pack-") as temporary:
        folder = Path(staging.url if staging.is_local else temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pattern = str(folder).replace("%", "%%") + "/shard-%05d.tar"
            limits = {"maxcount": shard_samples, "maxsize": shard_size_bytes}
            writer = webdataset.ShardWriter(pattern, **limits, post=finish, verbose=0, encoder=False, mtime=0)
            with writer:
                for sample in samples:
                    writer.write(sample)
        except OSError as error:
            raise RunError(f"cannot write shards to {folder}: {error}; free space or name another folder") from error
    return shards


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
