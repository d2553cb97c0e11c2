"""The image files of a folder or a zip, local or under s3://, and the classes that its folders make."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.images import IMAGE_EXTENSIONS
from cluster.storage import open_folder, split_object
from freqgan.errors import InputError

MAX_IMAGE_BYTES = 256 * 2**20

_OTHER_FORMATS = re.compile(
    "avif|bmp|cr2|dng|eps|exr|gif|hdr|heic|heif|ico|j2k|jfif|jp2|jpe|jxl|nef|pbm|pcx|pgm|pnm|ppm|psd|raw|svg|tga|tiff?|xpm"
)
_GIVE = "give a folder or a .zip of JPEG, PNG or WebP images"


@dataclass(frozen=True)
class ImageFiles:
    """Files of a folder or a zip: relative names, and how to read one."""

    url: str
    names: list[str]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Listing:
    """The images among a source's files, sorted, and their classes; no classes without sub-folders."""

    images: list[str]
    labels: list[int] | None
    classes: list[str]
    hidden: int
    others: int


@contextmanager
def open_images(source: str) -> Iterator[ImageFiles]:
    """The files of ``source``, readable inside the context; InputError when there is no such folder or zip."""
    if source.lower().endswith(".zip"):
        with _open_zip(source) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            yield ImageFiles(source, sorted(set(names)), lambda name: _read_zipped(archive, name, source))
        return
    folder = open_folder(source)
    names = folder.list()
    if not names:
        path = Path(folder.url)
        if folder.is_local and path.exists():
            raise InputError(f"{source} is {'an empty folder' if path.is_dir() else 'no folder'}: {_GIVE}")
        raise InputError(f"there is no folder {source}: {_GIVE}")
    yield ImageFiles(source, names, folder.read)


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


def list_images(files: ImageFiles) -> Listing:
    """The images among ``files``; InputError for none, for other formats, and for images beside class folders."""
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
    return Listing(images, labels, classes, len(files.names) - len(shown), len(shown) - len(images))


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
