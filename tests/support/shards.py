"""Folders of images, tars and shards that tests write, and what is in them."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.data.shard_index import build_index, index_shards
from cluster.storage.folder import open_folder
from tests.support.s3_server import BUCKET

SHARED_CIFAR10 = Path(__file__).parents[3] / "shared/data/cifar10"


def image_bytes(number: int, kind: str = "JPEG", size: int = 8) -> bytes:
    """A small image that differs from that of any other ``number``."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(
    path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shard_members(first: int, count: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        members[f"{number:04d}.jpg"] = image_bytes(number)
        members[f"{number:04d}.cls"] = str(number % 3).encode()
    return members


def upload(source: Path) -> str:
    """Copy the files below ``source`` into a new folder of the bucket; its URL."""
    folder = open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in source.rglob("*"):
        if path.is_file():
            folder.upload(path, path.relative_to(source).as_posix())
    return folder.url


def fill_source(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 6) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            kind = ("JPEG", "PNG", "WEBP")[number % 3]
            (folder / name / f"{number}.{kind.lower()}").write_bytes(image_bytes(100 * label + number, kind))
    return folder


def make_file(path: Path, content: bytes = b"") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def zip_of(source: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.rglob("*")):
            archive.write(file, inside + file.relative_to(source).as_posix())
    return path


def packed_images(url: str) -> set[tuple[bytes, int | None]]:
    """The bytes and label of every image of the shards at ``url``."""
    found = set()
    for shard in build_index(url).shards:
        data = open_folder(url).read(shard.url.rpartition("/")[2])
        found |= {(data[s.offset : s.offset + s.size_bytes], s.label) for s in shard.samples}
    return found


EXPECTED = {
    (image_bytes(100 * label + number, ("JPEG", "PNG", "WEBP")[number % 3]), label)
    for label in range(2)
    for number in range(6)
}


def npy_bytes(values: object) -> bytes:
    """The .npy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def described_members(first: int, count: int, length: int = 5) -> dict[str, bytes]:
    """Pictures of two classes, each with a vector, a text and fields beside it."""
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        vector = np.random.default_rng(number).normal(3, 2, length)
        fields = {"age": number, "box": [1.5, -number], "word": "größer", "many": ["a"], "none": None}
        members[f"{number:04d}.png"] = image_bytes(number, "PNG", 16)
        members[f"{number:04d}.cls"] = str(number % 2).encode()
        members[f"{number:04d}.npy"] = npy_bytes(vector)
        members[f"{number:04d}.txt"] = f"  picture {number}, größer\n".encode()
        members[f"{number:04d}.json"] = json.dumps(fields).encode()
    return members


def write_described_shards(folder: Path, shards: int = 3, count: int = 16) -> Path:
    """Shards of such pictures, with an index."""
    for shard in range(shards):
        write_tar(folder / f"{shard}.tar", described_members(shard * count, count))
    index_shards(str(folder))
    return folder
