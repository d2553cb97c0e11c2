"""Batches of images for training: decoded once, a pure function of (seed, data, position).

Shards on a disk are mapped into memory where they lie. Shards in a bucket are copied whole to a
spool folder by one background thread, which works one block of the order ahead; shards outside
this block and the next are let go, so memory and disk stay bounded by two blocks.

What the index knows is checked: sha256 of a shard when it is mapped, each time if it was fetched and the first time if
it lies on a disk, and crc32 of an image when it is read. What was damaged on its way is fetched again. What stays
damaged is an error or, where that is wanted, told image by image, so that a batch can be had without it.
"""

from __future__ import annotations

import mmap
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.data.decoding import Pixels, TooLargeError, decode_image, fit_image
from cluster.data.quarantine import WHOLE_SHARD, DamageFoundError, QuarantinedImage, check_some_are_left, images_of
from cluster.data.sampler import BlockShuffle
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_cache import ShardCache
from cluster.data.shard_index import DamagedError, damaged, difference
from cluster.data.shards import Shard, ShardSet
from cluster.data.skip_list import SkipList
from cluster.storage.folder import Folder, split_object
from cluster.storage.timeouts import USUAL_PATIENCE, ReadTimeouts
from freqgan.errors import FreqganError, InputError

NO_LABEL = -1
LABELS = np.iinfo(np.int64)
"""What a batch can hold; one beyond, such as 2**64 - 1, is none (a training with classes refuses it before)."""

FETCHES = 3
"""Times that a shard is fetched before damage counts as that of the object itself."""


class UnusableError(InputError):
    """A shard that is not there any more or was replaced, or an image that cannot be decoded."""


@dataclass
class Batch:
    """``pixels``: uint8 or uint16 (B, N, N, C), as decoders give them; ``labels``: int64 (B,), NO_LABEL for none."""

    pixels: Pixels
    labels: NDArray[np.int64]

    @property
    def images(self) -> Pixels:
        """A view (B, C, N, N) of the pixels: taking the channels apart would cost a third of what decoding does."""
        return self.pixels.transpose(0, 3, 1, 2)


class BatchReader:
    """Reads batches at any position; for one caller at a time. Close it, or use it in ``with``.

    How images are cropped is ``policy``'s matter (see :meth:`DataSettings.image_policy`); of
    ``settings`` only the order is read here.

    Args:
        index: of the shards.
        policy: what becomes of an image.
        seed: of order and crops.
        settings: of the order.
        patience: with storage.
        most_damaged: where given, damage is told by DamageFoundError, so many images at a time and one more;
            else the first damage is an error.
        cache: of shards of buckets.

    """

    def __init__(
        self,
        index: ShardSet,
        policy: ImagePolicy,
        seed: int,
        settings: DataSettings,
        patience: ReadTimeouts = USUAL_PATIENCE,
        most_damaged: int | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        counts = [len(shard.samples) for shard in index.shards]
        self._order = BlockShuffle(counts, seed, settings.shuffle, settings.shuffle_shards)
        self._index, self._policy, self._seed = index, policy, seed
        self._omissions, self._most_damaged = SkipList(self._order), most_damaged
        self._store = _ShardStore(index, patience, cache, tolerant=most_damaged is not None)
        self._told: set[int] = set()
        """Shards whose damage beside their images is known."""
        self._left_out: dict[tuple[int, int], QuarantinedImage] = {}

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, first_image: int, count: int) -> Batch:
        """Samples ``first_image`` .. ``first_image + count - 1`` since the start of training.

        The same arguments give equal bytes whatever was called before, as long as the same images are left out; in
        sequence it is fast.
        Raises InputError naming shard and member of an image that cannot be decoded or a shard of another size,
        RunError for one that does not hold what was indexed, and what storage raises when it cannot be had.
        """
        if count < 1:
            raise InputError(f"a batch of {count} images cannot be made: at least 1 is needed")
        size = self._policy.size
        pixels = np.empty((count, size, size, self._policy.channels), self._policy.dtype)
        labels = np.empty(count, np.int64)
        found: list[QuarantinedImage] = []
        first_position = position = held_until = self._omissions.position_of(first_image)
        done = 0
        while done < count:
            if position >= held_until:
                held_until = self._hold(position)
            if not self._omissions.passes_over(position):
                try:
                    labels[done] = self._sample(position, pixels[done])
                    done += 1
                except (DamagedError, UnusableError) as error:
                    if self._most_damaged is None:
                        raise
                    found.append(self._damage(position, error))
                    if len(found) > min(self._most_damaged, self._order.sample_count):
                        break
            position += 1
        found += [
            QuarantinedImage(self._index.shards[number].url, "", str(what), number, WHOLE_SHARD, first_position)
            for number, what in sorted(self._store.met.items())
            if number not in self._told
        ]
        if found:
            first_met = {one.key: one for one in reversed(found)}  # a batch of a small set may come to an image twice
            raise DamageFoundError(tuple(reversed(first_met.values())))
        return Batch(pixels, labels)

    def leave_out(self, images: Sequence[QuarantinedImage]) -> None:
        """Passes over ``images`` from now on, each from its position on; RunError where none is left."""
        self._told |= {one.shard_number for one in images if one.sample_number == WHOLE_SHARD}
        left_out = images_of(images)
        self._left_out |= {one.key: one for one in left_out}
        check_some_are_left(self._left_out.values(), self._order.sample_count)
        self._omissions.add((*one.key, one.position) for one in left_out)

    @property
    def refetched(self) -> int:
        """How often a shard was fetched again because it came damaged."""
        return self._store.refetched

    def close(self) -> None:
        """Let go of all shards, end the background thread and remove the spool folder."""
        self._store.close()

    def _hold(self, position: int) -> int:
        """Has the shards of the block of ``position`` fetched, and those of the next; the end of the block."""
        end = self._order.block_end(position)
        self._store.hold(self._order.block_of(position), self._order.block_of(end))
        return end

    def _damage(self, position: int, error: Exception) -> QuarantinedImage:
        number, sample_number = self._order.locate(position)
        shard = self._index.shards[number]
        name = shard.samples[sample_number].image_name
        return QuarantinedImage(shard.url, name, str(error), number, sample_number, position)

    def _sample(self, position: int, out: Pixels) -> int:
        """Puts the pixels at ``position`` into ``out`` (N, N, C); its label."""
        number, sample_number = self._order.locate(position)
        shard, policy = self._index.shards[number], self._policy
        sample = shard.samples[sample_number]
        data = self._store.read(number, sample.offset, sample.size_bytes)
        if sample.crc32 is not None and zlib.crc32(data) != sample.crc32:
            raise damaged(shard, f"{sample.image_name} at offset {sample.offset} is not what was indexed")
        name = f"{sample.image_name} in {shard.url}"
        try:
            image = _decoded(data, name, policy, out)
        except TooLargeError as error:
            raise UnusableError(f"{error}, or train with a larger ingest.max_pixels") from error
        except InputError as error:
            raise UnusableError(str(error)) from error
        if not np.may_share_memory(image, out):
            out[:] = fit_image(image, policy, self._seed, "crop", position).transpose(1, 2, 0)
        return NO_LABEL if sample.label is None or not LABELS.min <= sample.label <= LABELS.max else sample.label


def _decoded(data: bytes, name: str, policy: ImagePolicy, out: Pixels) -> Pixels:
    return decode_image(
        data,
        name,
        channels=policy.channels,
        background=policy.background,
        max_pixels=policy.max_pixels,
        bit_depth=policy.bit_depth,
        into=out,
    )


def reader_without(reader_factory: Callable[[], BatchReader], left_out: Sequence[QuarantinedImage]) -> BatchReader:
    """A reader that passes over ``left_out`` from the start; here, where it takes no torch to load it."""
    ingest = reader_factory()
    ingest.leave_out(left_out)
    return ingest


class _ShardStore:
    """The bytes of the shards in use; a shard is checked here before any sample of it is read.

    ``tolerant``: a shard that stays damaged is given as it is where its index has a checksum of every image, so that
    those that are whole can be used; what is not there at all stays an error until the shard is let go.
    """

    def __init__(self, index: ShardSet, patience: ReadTimeouts, cache: ShardCache | None, *, tolerant: bool) -> None:
        self._cache = cache
        self._shards, self._patience, self._tolerant = index.shards, patience, tolerant
        self.refetched = 0
        self.met: dict[int, FreqganError] = {}
        """What is wrong with the shards that have been read from and of which only headers or padding are damaged."""
        self._beside_images: dict[int, FreqganError] = {}
        self._checked_on_disk: set[int] = set()
        self._maps: dict[int, Future[mmap.mmap]] = {}
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        self._fetcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="freqgan-fetch")

    def hold(self, current: tuple[int, ...], following: tuple[int, ...]) -> None:
        """Begin to fetch what is missing of these shards, ``current`` first, and let go of all others."""
        wanted = dict.fromkeys(current + following)
        for number in self._maps.keys() - wanted.keys():
            self._release(number)
        for number in wanted:
            if number not in self._maps:
                self._maps[number] = self._fetcher.submit(self._fetch, number)

    def read(self, number: int, offset: int, size_bytes: int) -> bytes:
        """Bytes of a shard that is held, waiting for it; a failed fetch is tried again by the next ``hold``."""
        try:
            data = self._maps[number].result()
            if number in self._beside_images:
                self.met[number] = self._beside_images[number]
            return data[offset : offset + size_bytes]
        except FreqganError as error:
            if not (self._tolerant and isinstance(error, DamagedError | UnusableError)):
                del self._maps[number]
            raise

    def close(self) -> None:
        for number in list(self._maps):
            self._release(number)
        self._fetcher.shutdown(wait=True, cancel_futures=True)
        if self._spool is not None:
            self._spool.cleanup()

    def _fetch(self, number: int) -> mmap.mmap:
        shard = self._shards[number]
        folder, name = split_object(shard.url)
        try:
            return self._mapped(number, folder, name) if folder.is_local else self._fetched(number, folder, name)
        except InputError as error:
            if isinstance(error, UnusableError) or folder.exists(name):
                raise
            raise UnusableError(str(error)) from error

    def _mapped(self, number: int, folder: Folder, name: str) -> mmap.mmap:
        """Where it lies on a disk."""
        shard, size_bytes = self._shards[number], folder.size(name)
        changed = _changed(shard, size_bytes) if size_bytes != shard.size_bytes else None
        if changed is not None and not (size_bytes and self._takes_parts_of(shard)):
            raise changed
        try:
            data = _map(Path(folder.url) / name)
        except OSError as error:
            raise InputError(f"cannot read {shard.url}: {error.strerror}; make it readable") from error
        if number not in self._checked_on_disk:
            what = difference(shard, data)
            wrong = changed if what is None else changed or damaged(shard, what)
            if wrong is not None and not self._takes_parts_of(shard):
                data.close()
                raise wrong
            self._note(number, data, wrong)
            self._checked_on_disk.add(number)
        return data

    def _fetched(self, number: int, folder: Folder, name: str) -> mmap.mmap:
        """A copy of it from the cache; or one that has no name any more: not even a SIGKILL leaves something behind."""
        shard = self._shards[number]
        if self._cache is not None and shard.sha256 is not None:
            fill = partial(self._download, number, folder, name)
            try:
                data = self._cache.get(shard.sha256, shard.size_bytes, fill)
            except OSError as error:
                raise InputError(
                    f"shard_cache: {self._cache.folder} cannot be used ({error.strerror}); name a folder on a local "
                    "disk that this user may write to"
                ) from error
            if data is not None:
                return data
        self._spool = self._spool or tempfile.TemporaryDirectory(prefix="freqgan-spool-")
        copy = Path(self._spool.name) / f"{number}.tar"
        try:
            return self._download(number, folder, name, copy)[0]
        finally:
            copy.unlink(missing_ok=True)

    def _download(self, number: int, folder: Folder, name: str, copy: Path) -> tuple[mmap.mmap, bool]:
        """The bytes of a shard of a bucket, copied to ``copy``, and whether they are those that were indexed."""
        shard = self._shards[number]
        for left in reversed(range(FETCHES)):
            folder.download(name, copy, self._patience)
            data = _map(copy) if copy.stat().st_size else None
            what = _difference(shard, data)
            if data is not None and what is None:
                return data, True
            size_bytes = folder.size(name)
            replaced = size_bytes != shard.size_bytes
            error = _changed(shard, size_bytes) if replaced else damaged(shard, str(what))
            if data is not None and (replaced or not left) and self._takes_parts_of(shard):
                self._note(number, data, error)
                return data, False
            if data is not None:
                data.close()
            if replaced or not left:
                raise error
            self.refetched += 1
        raise AssertionError("the last round returns or raises")

    def _note(self, number: int, data: mmap.mmap, error: FreqganError | None) -> None:
        """Keeps ``error`` of a shard all of whose images are whole: nothing else would tell of it."""
        whole = all(
            zlib.crc32(data[one.offset : one.offset + one.size_bytes]) == one.crc32
            for one in self._shards[number].samples
        )
        if error is not None and whole:
            self._beside_images[number] = error

    def _takes_parts_of(self, shard: Shard) -> bool:
        """Whether images of a damaged ``shard`` can be told from those that are whole, and are wanted."""
        return self._tolerant and all(sample.crc32 is not None for sample in shard.samples)

    def _release(self, number: int) -> None:
        future = self._maps.pop(number)
        if not future.cancel():
            future.add_done_callback(_close_map)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _difference(shard: Shard, data: mmap.mmap | None) -> str | None:
    """How what came differs from the shard that was indexed."""
    if data is None or len(data) != shard.size_bytes:
        return f"only {0 if data is None else len(data)} bytes of it came"
    return difference(shard, data)


def _changed(shard: Shard, size_bytes: int) -> UnusableError:
    return UnusableError(
        f"{shard.url} has {size_bytes} bytes, but had {shard.size_bytes} when it was indexed: "
        "it was replaced or cut off; restore it or index the data again"
    )


def _close_map(future: Future[mmap.mmap]) -> None:
    if future.exception() is None:
        future.result().close()
