"""Packing images into WebDataset shards: the only file that uses webdataset.

The source is a folder or a zip, local or under s3://. Image bytes are copied untouched, after each
has been decoded once to see that it can be; files of other formats become images or strips. The same
files give byte-equal shards: names are sorted, then permuted by a fixed seed so that classes mix, and times and owners
are constants. The clips of one video follow each other.
"""

from __future__ import annotations

import json
import math
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.data.decoding import image_format
from cluster.data.image_descriptions import Description, describe_images
from cluster.data.image_folders import ImageFiles, open_images
from cluster.data.image_tables import NO_COLUMNS, TableColumns
from cluster.data.sampler import permutation
from cluster.data.settings import ARRAY_EXTENSION, MAX_PIXELS
from cluster.data.shard_index import INDEX_NAME, Progress, check_image, mapped, with_checksums, write_index
from cluster.data.shards import Shard, read_shard
from cluster.data.targets import checked_members
from cluster.formats.meaning import SharedFacts
from cluster.formats.source_format import STILLS, Conversion, Piece, PieceOptions, Source, Tally
from cluster.formats.strips import encode_piece, sample_fields
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError, RunError, counted

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
    something beside them, by extension. ``files`` counts what they were packed of, ``frames`` are of each clip (None of
    still images), ``tally`` says what became of frames, ``without_clips`` are files too short for one, and ``refused``
    says of files of a known format that hold no image what they hold. ``table`` is the name of the table that describes
    images, ``unnamed`` are those it does not name, and which are not packed, ``lost`` the paths in it where there is no
    image.
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
    files: int = 0
    frames: int | None = None
    tally: Tally = field(default_factory=Tally)
    without_clips: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
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
    options: PieceOptions = STILLS,
    progress: Progress = lambda done, total: None,
) -> PackReport:
    """Write the images of ``source`` to shard-00000.tar, ... and index.json in ``destination``.

    Images in sub-folders get the number of their sub-folder, sorted by name with numbers by their value, as label;
    folders that hold everything else (as in many a zip) are passed through first. Links to folders are followed. Files
    with the name of an image but for .txt, .npy or .json are packed beside it, and so is what ``table`` says of it.
    Arrays and TIFFs are converted; with ``options.frames`` videos, animations, arrays and folders of numbered images
    are cut into clips, each of which is a sample with all that lies beside its video. A shard ends with the sample that
    brings its images to ``shard_size_bytes`` or its count to ``shard_samples``. Shards appear under their names only
    when all are written. InputError for what cannot be packed, naming the file.
    """
    if shard_size_bytes < 1 or shard_samples < 1:
        raise InputError(f"shards of {shard_samples} samples and {shard_size_bytes} bytes: both must be at least 1")
    target = open_folder(destination)
    if target.url == open_folder(source).url:
        raise InputError(f"{destination} holds the images that are to be packed: name another folder for the shards")
    with open_images(source) as files:
        listing, described = describe_images(files, table, columns, options)
        conversions, values = described.sources.conversions(described.images, options)
        _check_destination(target)
        is_new = not target.is_there()
        staging_name = f".packing-{secrets.token_hex(4)}"
        staging = target.child(staging_name)
        stream = _SampleStream(files, described, conversions, options, progress)
        try:
            shards = _write_shards(stream.samples(), staging, shard_size_bytes, shard_samples)
            for shard in shards:
                name = shard.url.rpartition("/")[2]
                target.rename(f"{staging_name}/{name}", name)
        finally:
            staging.delete_tree()
            if is_new:
                target.delete_if_empty()
    write_index(target, shards, described.classes, stream.facts.values(values))
    return PackReport(
        images=stream.count,
        shards=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        classes=list(described.classes),
        hidden=listing.hidden,
        others=described.others,
        empty=listing.empty,
        returning=listing.returning,
        beside=described.counts(),
        files=len(described.images),
        frames=options.frames,
        tally=stream.tally,
        without_clips=tuple(sorted(stream.without_clips)),
        refused=described.sources.refused,
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


_Parts = dict[str, str | bytes]


@dataclass
class _SampleStream:
    """The samples of all that is packed, as webdataset wants them, in the order of writing.

    Attributes:
        files: that are packed.
        described: what is known of them.
        conversions: how each source that is no image becomes pieces.
        options: of the pieces.
        progress: told how many of the images and sources are done.
        count: of the samples.
        tally: of frames.
        facts: that all pieces share.
        without_clips: sources that gave no sample.

    """

    files: ImageFiles
    described: Description
    conversions: Mapping[str, Conversion]
    options: PieceOptions
    progress: Progress
    count: int = 0
    tally: Tally = field(default_factory=Tally)
    facts: SharedFacts = field(default_factory=SharedFacts)
    without_clips: list[str] = field(default_factory=list)
    _vector_length: int | None = None

    def samples(self) -> Iterator[_Parts]:
        """Yield the samples; each image is decoded once, to check it, and so is what lies beside it.

        After one that cannot be read, the others are only looked at, so that one error names all of them.
        """
        total = len(self.described.images)
        damaged: list[str] = []
        for number, index in enumerate(permutation(total, _SHUFFLE_SEED, "pack").tolist()):
            before = self.count
            try:
                for parts in self._samples_of(self.described.images[index]):
                    if not damaged:
                        yield self._numbered(parts, index)
            except InputError as error:
                damaged.append(str(error))
            else:
                if not damaged and self.count == before:
                    self.without_clips.append(self.described.images[index])
            self.progress(number + 1, total)
        self._raise_damaged(damaged, total)
        if not self.count:
            raise self._no_clips()

    def _numbered(self, parts: _Parts, index: int) -> _Parts:
        """Return a sample with its key and its label, which stands behind the image."""
        (kind, image), *members = parts.items()
        sample: _Parts = {"__key__": f"{self.count:08d}", kind: image}
        if self.described.labels is not None:
            sample["cls"] = str(self.described.labels[index]).encode()
        self.count += 1
        return sample | dict(members)

    def _samples_of(self, name: str) -> Iterator[_Parts]:
        """Yield the image and what lies beside it, by extension, of every sample of an image or a source."""
        if name not in self.conversions:
            data = self.files.read(name)
            check_image(data, f"{name} in {self.files.url}")
            kind = image_format(data) or ""
            yield {ARRAY_EXTENSION if kind == "npy" else kind: data, **self._members(name)}
            return
        source, members = self.described.sources.by_name[name][1], self._members(name)
        described = json.loads(members["json"].decode("utf-8-sig")) if "json" in members else {}
        for piece in self.conversions[name].pieces(source, self.tally):
            self.facts.add(piece)
            yield self._packed(piece, source, members, described)

    def _members(self, name: str) -> dict[str, bytes]:
        members = self.described.members(name, self.files)
        title = f"{self.described.sources.stem(name)} in {self.files.url}"
        self._vector_length = checked_members(members, title, self._vector_length)
        return members

    def _packed(
        self, piece: Piece, source: Source, members: Mapping[str, bytes], described: Mapping[str, Any]
    ) -> _Parts:
        rows, columns = math.prod(piece.pixels.shape[:-2]), piece.pixels.shape[-2]
        if rows * columns > MAX_PIXELS:
            raise InputError(
                f"{source.title} makes an image of {rows} x {columns} pixels, more than the {MAX_PIXELS} allowed: give "
                "a smaller --size, or fewer --frames"
            )
        kind, image = encode_piece(piece, source.title, self.options.quality)
        parts: _Parts = {ARRAY_EXTENSION if kind == "npy" else kind: image, **members}
        fields = sample_fields(piece, described, source.title)
        return parts if fields is None else parts | {"json": fields}

    def _raise_damaged(self, damaged: list[str], total: int) -> None:
        if len(damaged) > 1:
            more = f"\n  and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
            named = "\n  ".join(sorted(damaged)[:MOST_NAMED])
            what = "images" if self.options.frames is None else "videos"
            what += ", or what lies beside them," if self.described.counts() else ""
            raise InputError(f"{len(damaged)} of {total} {what} cannot be packed:\n  {named}{more}")
        if damaged:
            raise InputError(damaged[0])

    def _no_clips(self) -> InputError:
        cuts = f" with {counted(self.tally.cuts, 'cut')}" if self.tally.cuts else ""
        return InputError(
            f"{self.files.url} gives no clip of {self.options.frames} frames: {self.tally.left_over} frames of "
            f"{counted(len(self.described.images), 'source')}{cuts} are too few in one piece; give fewer --frames or a "
            "smaller --stride"
        )


def _write_shards(samples: Iterator[_Parts], staging: Folder, shard_size_bytes: int, shard_samples: int) -> list[Shard]:
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
