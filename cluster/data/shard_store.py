"""The bytes of the shards in use: fetched ahead, verified, held, and let go.

Shards on a disk are mapped into memory where they lie. Shards in a bucket are copied whole to a cache or a spool folder
by one background thread. A shard is held against its sha256 in the index when it is mapped: each time if it was
fetched, the first time if it lies on a disk. What was damaged on its way is fetched again.
"""

from __future__ import annotations

import mmap
import tempfile
import zlib
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster.data.shard_cache import ShardCache
from cluster.data.shard_index import DamagedError, damaged, difference
from cluster.data.shards import Member, Sample, Shard, ShardSet
from cluster.storage.folder import Folder, split_object
from cluster.storage.timeouts import ReadTimeouts
from freqgan.errors import FreqganError, InputError

FETCHES = 3
"""Times that a shard is fetched before damage counts as that of the object itself."""


class UnusableError(InputError):
    """A shard that is not there any more or was replaced, or an image that cannot be decoded, or has no target."""


@dataclass(frozen=True)
class Verdict:
    """The result of holding the bytes of a shard against its index.

    Attributes:
        error: what is wrong with them; None where they are sound.
        is_replaced: the object itself has another size than was indexed, so that fetching it again does not help.

    """

    error: FreqganError | None = None
    is_replaced: bool = False


def check_shard(shard: Shard, data: mmap.mmap | None, stored_bytes: Callable[[], int]) -> Verdict:
    """Return whether ``data`` is what was indexed, and if not, whether it was damaged or the object was replaced.

    Args:
        shard: what the index knows.
        data: what came; None if that is nothing.
        stored_bytes: returns the size of the object; called only where ``data`` is not what was indexed.

    """
    fault = _fault(shard, data)
    if fault is None:
        return Verdict()
    size_bytes = stored_bytes()
    if size_bytes == shard.size_bytes:
        return Verdict(damaged(shard, fault))
    message = (
        f"{shard.url} has {size_bytes} bytes, but had {shard.size_bytes} when it was indexed: "
        "it was replaced or cut off; restore it or index the data again"
    )
    return Verdict(UnusableError(message), is_replaced=True)


class ShardStore:
    """The bytes of the shards in use; a shard is checked here before any sample of it is read.

    Args:
        index: all shards.
        patience: with storage.
        cache: of shards of buckets.
        tolerant: a shard that stays damaged is given as it is where its index has a checksum of every image, so that
            those that are whole can be used; what is not there at all stays an error until the shard is let go.
        members: extensions of what is read beside images.

    Attributes:
        refetched: how often a shard was fetched again because it came damaged.
        damage_beside_images: what is wrong with the shards that have been read from and of which only headers or
            padding are damaged, by shard number.

    """

    def __init__(
        self,
        index: ShardSet,
        patience: ReadTimeouts,
        cache: ShardCache | None,
        *,
        tolerant: bool,
        members: Collection[str] = (),
    ) -> None:
        self._cache, self._members = cache, members
        self._shards, self._patience, self._tolerant = index.shards, patience, tolerant
        self.refetched = 0
        self.damage_beside_images: dict[int, FreqganError] = {}
        self._unread_damage: dict[int, FreqganError] = {}
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
        """Return bytes of a shard that is held, waiting for it; a failed fetch is tried again by the next ``hold``.

        Raises:
            InputError: the shard is not there, was replaced (:class:`UnusableError`), or cannot be read.
            DamagedError: it is not what was indexed.
            RunError: what storage raises when it cannot be had.

        """
        try:
            data = self._maps[number].result()
            if number in self._unread_damage:
                self.damage_beside_images[number] = self._unread_damage[number]
            return data[offset : offset + size_bytes]
        except FreqganError as error:
            if not (self._tolerant and isinstance(error, DamagedError | UnusableError)):
                del self._maps[number]
            raise

    def close(self) -> None:
        """Let go of all shards, end the background thread and remove the spool folder."""
        for number in list(self._maps):
            self._release(number)
        self._fetcher.shutdown(wait=True, cancel_futures=True)
        if self._spool is not None:
            self._spool.cleanup()

    def _fetch(self, number: int) -> mmap.mmap:
        folder, name = split_object(self._shards[number].url)
        try:
            return self._map_in_place(number, folder, name) if folder.is_local else self._copy(number, folder, name)
        except InputError as error:
            if isinstance(error, UnusableError) or folder.exists(name):
                raise
            raise UnusableError(str(error)) from error

    def _map_in_place(self, number: int, folder: Folder, name: str) -> mmap.mmap:
        """Map a shard where it lies on a disk."""
        shard, size_bytes = self._shards[number], folder.size(name)
        try:
            data = _map(Path(folder.url) / name) if size_bytes else None
        except OSError as error:
            raise InputError(f"cannot read {shard.url}: {error.strerror}; make it readable") from error
        is_checked = number in self._checked_on_disk
        if data is not None and is_checked and (size_bytes == shard.size_bytes or self._takes_parts_of(shard)):
            return data
        data = self._accept(number, data, check_shard(shard, data, lambda: size_bytes))
        self._checked_on_disk.add(number)
        return data

    def _copy(self, number: int, folder: Folder, name: str) -> mmap.mmap:
        """Copy a shard of a bucket to the cache, or to a file without a name, of which not even SIGKILL leaves any."""
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
        path = Path(self._spool.name) / f"{number}.tar"
        try:
            return self._download(number, folder, name, path)[0]
        finally:
            path.unlink(missing_ok=True)

    def _download(self, number: int, folder: Folder, name: str, path: Path) -> tuple[mmap.mmap, bool]:
        """Return the bytes of a shard of a bucket, copied to ``path``, and whether they are those that were indexed."""
        data, verdict = self._download_once(number, folder, name, path)
        for _ in range(FETCHES - 1):
            if verdict.error is None or verdict.is_replaced:
                break
            if data is not None:
                data.close()
            self.refetched += 1
            data, verdict = self._download_once(number, folder, name, path)
        return self._accept(number, data, verdict), verdict.error is None

    def _download_once(self, number: int, folder: Folder, name: str, path: Path) -> tuple[mmap.mmap | None, Verdict]:
        folder.download(name, path, self._patience)
        data = _map(path) if path.stat().st_size else None
        return data, check_shard(self._shards[number], data, lambda: folder.size(name))

    def _accept(self, number: int, data: mmap.mmap | None, verdict: Verdict) -> mmap.mmap:
        """Return ``data`` if it is sound, or if its whole images are wanted; raise the error of ``verdict`` if not."""
        shard = self._shards[number]
        if data is None:
            raise verdict.error or damaged(shard, "it is empty")
        if verdict.error is not None:
            if not self._takes_parts_of(shard):
                data.close()
                raise verdict.error
            if _images_are_whole(shard, data, self._members):  # else reading them tells of the damage
                self._unread_damage[number] = verdict.error
        return data

    def _takes_parts_of(self, shard: Shard) -> bool:
        """Return whether images of a damaged ``shard`` can be told from those that are whole, and are wanted."""
        return self._tolerant and all(sample.crc32 is not None for sample in shard.samples)

    def _release(self, number: int) -> None:
        future = self._maps.pop(number)
        if not future.cancel():
            future.add_done_callback(_close_map)


def _images_are_whole(shard: Shard, data: mmap.mmap, members: Collection[str]) -> bool:
    """Return whether all images are what was indexed, and what lies beside them under one of ``members``."""
    parts: list[Sample | Member] = [*shard.samples]
    parts += [member for sample in shard.samples for member in sample.members if member.extension in members]
    return all(zlib.crc32(data[part.offset : part.offset + part.size_bytes]) == part.crc32 for part in parts)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _fault(shard: Shard, data: mmap.mmap | None) -> str | None:
    """Return how what came differs from the shard that was indexed; None where it does not."""
    if data is None or len(data) != shard.size_bytes:
        return f"{0 if data is None else len(data)} of {shard.size_bytes} bytes came"
    return difference(shard, data)


def _close_map(future: Future[mmap.mmap]) -> None:
    if future.exception() is None:
        future.result().close()
