"""The image files of a folder or a zip, local or under s3://, and the classes that its folders make."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO

from cluster.data.image_trees import is_hidden, walk_tree
from cluster.data.settings import IMAGE_EXTENSIONS
from cluster.data.zip_files import ZipFiles, open_zip
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.errors import InputError

_OTHER_FORMATS = re.compile(
    "avif|bmp|cr2|dng|eps|exr|gif|hdr|heic|heif|ico|j2k|jp2|jxl|nef|pbm|pcx|pgm|pnm|ppm|psd|raw|svg|tga|tiff?|xpm"
)
OTHER_FORMATS_REFUSED = (
    "{url} holds {count} images that are no JPEG, PNG or WebP, the first is {first}: convert or remove them"
)
_GIVE = "give a folder or a .zip of JPEG, PNG or WebP images"


@dataclass(frozen=True)
class ImageFiles:
    """Files of a folder or a zip.

    Attributes:
        url: of it.
        names: relative to it.
        read: the bytes of one.
        open: one as a binary file that can seek.
        folders: names of all folders, where they are known.
        broken: links that are not followed and may have led to images, and where to.
        returning: links back to folders that are read anyway.

    """

    url: str
    names: list[str]
    read: Callable[[str], bytes]
    open: Callable[[str], AbstractContextManager[BinaryIO]]
    folders: Collection[str] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    returning: Sequence[str] = ()


@dataclass(frozen=True)
class Listing:
    """The images among a source's files, sorted, and their classes; no classes without sub-folders.

    ``hidden`` and ``others`` count other files; ``empty`` are the folders in which there are no images, ``returning``
    the links that lead back.
    """

    images: list[str]
    labels: list[int] | None
    classes: list[str]
    hidden: int
    others: int
    empty: list[str]
    returning: list[str]


def is_zip(source: str) -> bool:
    """Return whether ``source`` is to be read as a zip: by its name, unless there is a folder of this name."""
    if not source.lower().endswith(".zip"):
        return False
    folder, name = split_object(source)
    return folder.exists(name) or not open_folder(source).is_there()


@contextmanager
def open_images(source: str) -> Iterator[ImageFiles]:
    """Open the files of ``source``; InputError when there is no such folder or zip."""
    if not is_zip(source):
        yield _in_folder(source)
        return
    folder, name = split_object(source)
    if not folder.exists(name):
        raise InputError(f"there is no file {source}: {_GIVE}")
    with open_zip(source) as archive:
        links = dict.fromkeys((link for link in archive.links if not is_hidden(link)), "a file of another name")
        open_one = partial(_open_unzipped, archive)
        yield ImageFiles(source, sorted(archive.files), archive.read, open_one, archive.folders, links)


def _in_folder(source: str) -> ImageFiles:
    folder = open_folder(source)
    if not folder.is_local:
        if names := folder.list():
            return ImageFiles(source, names, folder.read, folder.open)
    elif os.path.isdir(folder.url):
        tree = walk_tree(folder.url)
        if tree.files or tree.broken or tree.returning:
            read, open_one = partial(_read_file, folder), partial(_open_file, folder)
            return ImageFiles(source, sorted(tree.files), read, open_one, tree.folders, tree.broken, tree.returning)
        raise InputError(f"{source} is an empty folder: {_GIVE}")
    elif os.path.exists(folder.url):
        raise InputError(f"{source} is no folder: {_GIVE}")
    raise InputError(f"there is no folder {source}: {_GIVE}")


def _read_file(folder: Folder, name: str) -> bytes:
    _check_is_file(folder, name)
    return folder.read(name)


def _open_file(folder: Folder, name: str) -> AbstractContextManager[BinaryIO]:
    _check_is_file(folder, name)
    return folder.open(name)


def _check_is_file(folder: Folder, name: str) -> None:
    if not os.path.isfile(f"{folder.url}/{name}"):  # reading a pipe would never end
        raise InputError(f"{name} in {folder.url} is no file but a pipe, socket or device: remove it")


@contextmanager
def _open_unzipped(archive: ZipFiles, name: str) -> Iterator[BinaryIO]:
    yield io.BytesIO(archive.read(name))


def list_images(files: ImageFiles, *, with_classes: bool = True) -> Listing:
    """Return the images among ``files``; without classes it does not matter which folders they are in.

    Raises:
        InputError: there are none, or there are other formats, or images beside class folders.

    """
    visible = visible_names(files)
    refused = [name for name in visible if is_other_format(name)]
    if refused:
        raise InputError(OTHER_FORMATS_REFUSED.format(url=files.url, count=len(refused), first=refused[0]))
    images = sorted(name for name in visible if is_image(name))
    if not images:
        raise no_images(files)
    return listing_of(files, images, images, with_classes=with_classes)


def no_images(files: ImageFiles, hint: str = "") -> InputError:
    """Return the error of a folder or zip without images; ``hint`` follows the remedy."""
    known = ", ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
    return InputError(f"{files.url} holds no images ({known}) but {len(files.names)} other files: {_GIVE}{hint}")


def is_image(name: str) -> bool:
    """Return whether a file has the extension of a JPEG, PNG or WebP."""
    return _extension(name) in IMAGE_EXTENSIONS


def is_other_format(name: str) -> bool:
    """Return whether a file has the extension of some other format of images."""
    return _OTHER_FORMATS.fullmatch(_extension(name)) is not None


def visible_names(files: ImageFiles) -> list[str]:
    """Return the names of files that are not hidden; InputError where a link cannot be followed."""
    for link, target in sorted(files.broken.items()):
        raise InputError(
            f"{link} in {files.url} is a link to {target}, which cannot be followed"
            f"{f' (so are {len(files.broken) - 1} more)' if len(files.broken) > 1 else ''}: "
            "put what it leads to in its place, or remove it"
        )
    return [name for name in files.names if not is_hidden(name)]


def listing_of(files: ImageFiles, images: list[str], used: Collection[str], *, with_classes: bool = True) -> Listing:
    """Return the listing of ``images``, sorted names of files or of folders, that consist of the files ``used``.

    Raises:
        InputError: there are images beside class folders.

    """
    labels, classes = folder_labels(images, files.url) if with_classes else (None, [])
    visible = [name for name in files.names if not is_hidden(name)]
    empty = _without_images([*files.folders, *(name.rpartition("/")[0] for name in visible)], used)
    hidden, others = len(files.names) - len(visible), len(visible) - len(used)
    return Listing(images, labels, classes, hidden, others, empty, sorted(files.returning))


def _without_images(folders: Sequence[str], images: Collection[str]) -> list[str]:
    """Return the topmost of the folders in which there are no images, sorted."""
    with_images = {""}
    for folder in {image.rpartition("/")[0] for image in images}:
        while folder not in with_images:
            with_images.add(folder)
            folder = folder.rpartition("/")[0]
    empty = set()
    for folder in set(folders) - with_images:
        while folder.rpartition("/")[0] not in with_images:
            folder = folder.rpartition("/")[0]
        empty.add(folder)
    return sorted(folder for folder in empty if not is_hidden(folder))


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()


def folder_labels(images: Sequence[str], url: str) -> tuple[list[int] | None, list[str]]:
    """Return labels and classes of images by the first folder in which their names differ; None and [] without such.

    Raises:
        InputError: there are images beside class folders, or two folders of one name.

    """
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
    return numbered_classes([names[0] for names in parts], url)


def numbered_classes(names: Sequence[str], url: str) -> tuple[list[int], list[str]]:
    """Return the labels of images whose classes are called ``names``, and these names sorted, numbers by their value.

    Raises:
        InputError: two names differ only in how their letters are encoded.

    """
    classes = sorted(set(names), key=natural_key)
    _check_forms(classes, url)
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[name] for name in names], classes


def natural_key(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """Return a key that sorts numbers in names by their value, "2" before "10" and "a9" before "a10".

    All else it sorts as it is.
    """
    numbers_and_letters = re.findall("[0-9]+|[^0-9]", name)
    return [_weight(part) for part in numbers_and_letters], name


def _weight(part: str) -> tuple[str, int, str]:
    """Return a number stands where its digits would; its value is told by its length first, which may be any."""
    if not "0" <= part[0] <= "9":
        return part, 0, ""
    digits = part.lstrip("0")
    return "0", len(digits), digits


def _check_forms(classes: Sequence[str], url: str) -> None:
    known: dict[str, str] = {}
    for name in classes:
        other = known.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise InputError(
                f"{url} has two class folders called {name}, {other!a} and {name!a}, the same letters in "
                "different Unicode forms: put their images in one, or rename one"
            )
