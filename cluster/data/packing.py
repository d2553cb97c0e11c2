"""Packing images into WebDataset shards: the only file that uses webdataset.

The source is a folder or a zip, local or under s3://. Image bytes are copied untouched, after each
has been decoded once to see that it can be. The same images give byte-equal shards: names are
sorted, then permuted by a fixed seed so that classes mix, and times and owners are constants.
"""

from __future__ import annotations

import posixpath
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.data.decoding import decode_image, image_format
from cluster.data.image_descriptions import Description, describe_images
from cluster.data.image_folders import ImageFiles, open_images
from cluster.data.image_tables import NO_COLUMNS, TableColumns
from cluster.data.sampler import permutation
from cluster.data.shard_index import INDEX_NAME, Progress, mapped, with_checksums, write_index
from cluster.data.shards import Shard, read_shard
from cluster.data.targets import checked_members
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError, RunError

SHARD_SIZE_BYTES = 64 * 2**20
SHARD_SAMPLES = 10_000
MOST_NAMED = 20
"""Damaged images that an error names."""

_SHUFFLE_SEED = 0


@dataclass(frozen=True)
class PackReport:
    """What was packed; ``classes`` are the names of labels 0, 1 ...

    ``hidden`` and ``others`` count the files passed over (dot files, and no images), ``empty`` are folders without
    images, ``returning`` links that lead back to a folder that is packed anyway. ``beside`` counts the images that have
    something beside them, by extension. ``table`` is the name of the table that describes images, ``unnamed`` are those
    it does not name, and which are not packed, ``lost`` the paths in it where there is no image.
    """

    images: int
    shards: int
    size_bytes: int
    classes: list[str]
    hidden: int
    others: int
    empty: list[str] = field(default_factory=list)
    returning: list[str] = field(default_factory=list)
    beside: Mapping[str, int] = field(default_factory=dict)
    table: str = ""
    unnamed: Sequence[str] = ()
    lost: Sequence[str] = ()


def pack(
    source: str,
    destination: str,
    *,
    shard_size_bytes: int = SHARD_SIZE_BYTES,
    shard_samples: int = SHARD_SAMPLES,
    table: str | None = None,
    columns: TableColumns = NO_COLUMNS,
    progress: Progress = lambda done, total: None,
) -> PackReport:
    """Write the images of ``source`` to shard-00000.tar, ... and index.json in ``destination``.

    Images in sub-folders get the number of their sub-folder, sorted by name with numbers by their value, as label;
    folders that hold everything else (as in many a zip) are passed through first. Links to folders are followed. Files
    with the name of an image but for .txt, .npy or .json are packed beside it, and so is what ``table`` says of it. A
    shard ends with the sample that brings its images to ``shard_size_bytes`` or its count to ``shard_samples``. Shards
    appear under their names only when all are written. InputError for what cannot be packed, naming the file.
    """
    if shard_size_bytes < 1 or shard_samples < 1:
        raise InputError(f"shards of {shard_samples} samples and {shard_size_bytes} bytes: both must be at least 1")
    target = open_folder(destination)
    if target.url == open_folder(source).url:
        raise InputError(f"{destination} holds the images that are to be packed: name another folder for the shards")
    with open_images(source) as files:
        listing, described = describe_images(files, table, columns)
        _check_destination(target)
        is_new = not target.is_there()
        staging_name = f".packing-{secrets.token_hex(4)}"
        staging = target.child(staging_name)
        try:
            shards = _write_shards(_samples(files, described, progress), staging, shard_size_bytes, shard_samples)
            for shard in shards:
                name = shard.url.rpartition("/")[2]
                target.rename(f"{staging_name}/{name}", name)
        finally:
            staging.delete_tree()
            if is_new:
                target.delete_if_empty()
    write_index(target, shards, described.classes)
    return PackReport(
        images=len(described.images),
        shards=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        classes=list(described.classes),
        hidden=listing.hidden,
        others=described.others,
        empty=listing.empty,
        returning=listing.returning,
        beside=described.counts(),
        table=described.table,
        unnamed=described.unnamed,
        lost=described.lost,
    )


def _check_destination(target: Folder) -> None:
    taken = [name for name in target.files() if name.endswith(".tar") or name == INDEX_NAME]
    if taken:
        others = f"{len(taken)} files of shards ({', '.join(taken[:3])})"
        raise InputError(f"{target.url} already holds {others}: name an empty folder")
    target.check_writable()


def _samples(files: ImageFiles, described: Description, progress: Progress) -> Iterator[dict[str, str | bytes]]:
    """Return the samples in the order of writing, as webdataset wants them; each image is decoded once, to check it.

    So is what lies beside it. After one that cannot be read, the others are only looked at, so that one error names all
    of them.
    """
    total = len(described.images)
    damaged: list[str] = []
    length: int | None = None
    for number, index in enumerate(permutation(total, _SHUFFLE_SEED, "pack").tolist()):
        name = described.images[index]
        data = files.read(name)
        try:
            decode_image(data, f"{name} in {files.url}")
            members = described.members(name, files)
            length = checked_members(members, f"{posixpath.splitext(name)[0]} in {files.url}", length)
        except InputError as error:
            damaged.append(str(error))
        progress(number + 1, total)
        if damaged:
            continue
        sample: dict[str, str | bytes] = {"__key__": f"{number:08d}", image_format(data) or "": data}
        if described.labels is not None:
            sample["cls"] = str(described.labels[index]).encode()
        sample.update(members)
        yield sample
    if len(damaged) > 1:
        more = f"\n  and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
        named = "\n  ".join(sorted(damaged)[:MOST_NAMED])
        what = "images" if not described.counts() else "images, or what lies beside them,"
        raise InputError(f"{len(damaged)} of {total} {what} cannot be packed:\n  {named}{more}")
    if damaged:
        raise InputError(damaged[0])


def _write_shards(
    samples: Iterator[dict[str, str | bytes]], staging: Folder, shard_size_bytes: int, shard_samples: int
) -> list[Shard]:
    """Write all shards below ``staging``; those for a bucket pass through a temporary file, one at a time."""
    shards: list[Shard] = []

    def finish(path: str) -> None:
        if not writer.count:  # the first image could not be read, and its error is on the way
            return
        with mapped(path) as data:
            shards.append(with_checksums(read_shard(path), data))
        if not staging.is_local:
            staging.upload(Path(path), Path(path).name)
            Path(path).unlink()

    with tempfile.TemporaryDirectory(prefix="freqgan-pack-") as temporary:
        folder = Path(staging.url if staging.is_local else temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pattern = str(folder).replace("%", "%%") + "/shard-%05d.tar"
            limits = {"maxcount": shard_samples, "maxsize": shard_size_bytes}
            import webdataset  # which loads torch: not for a source that cannot be used

            writer = webdataset.ShardWriter(pattern, **limits, post=finish, verbose=0, encoder=False, mtime=0)
            with writer:
                for sample in samples:
                    writer.write(sample)
        except OSError as error:
            raise RunError(f"cannot write shards to {folder}: {error}; free space or name another folder") from error
    return shards
