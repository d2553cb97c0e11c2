"""Packing images into WebDataset shards: the only file that uses webdataset.

The source is a folder or a zip, local or under s3://. Image bytes are copied untouched, after each
has been decoded once to see that it can be. The same images give byte-equal shards: names are
sorted, then permuted by a fixed seed so that classes mix, and times and owners are constants.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import webdataset

from cluster.image_files import ImageFiles, Listing, list_images, open_images
from cluster.images import decode_image, image_format
from cluster.order import permutation
from cluster.storage import Folder, open_folder
from freqgan.errors import InputError, RunError

INDEX_NAME = "index.json"
SHARD_SIZE_BYTES = 64 * 2**20
SHARD_SAMPLES = 10_000

_SHUFFLE_SEED = 0

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
    with open_images(source) as files:
        listing = list_images(files)
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


def _check_destination(target: Folder) -> None:
    taken = [name for name in target.files() if name.endswith(".tar") or name == INDEX_NAME]
    if taken:
        found = f"{len(taken)} files of shards ({', '.join(taken[:3])})"
        raise InputError(f"{target.url} already holds {found}: name an empty folder")
    target.check_writable()


def _samples(files: ImageFiles, listing: Listing, progress: Progress) -> Iterator[dict[str, str | bytes]]:
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
