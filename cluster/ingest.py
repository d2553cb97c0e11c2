"""Batches of images for training: decoded once, a pure function of (seed, data, position).

Shards on a disk are mapped into memory where they lie. Shards in a bucket are copied whole to a
spool folder by one background thread, which works one block of the order ahead; shards outside
this block and the next are let go, so memory and disk stay bounded by two blocks.

What the index knows is checked: sha256 of a shard when it is mapped, each time if it was fetched and the first time if
it lies on a disk, and crc32 of an image when it is read. What was damaged on its way is fetched again.
"""

from __future__ import annotations

import mmap
import tempfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cluster.images import ImagePolicy, Pixels, decode_image, fit_image
from cluster.order import Order
from cluster.patience import USUAL_PATIENCE, Patience
from cluster.shard_index import damaged, difference
from cluster.shards import Shard, ShardIndex
from cluster.storage import Folder, open_folder, split_object
from freqgan.errors import FreqganError, InputError

NO_LABEL = -1
FETCHES = 3
"""Times that a shard is fetched before damage counts as that of the object itself."""


class DataSettings(BaseModel):
    """How the images are cropped and in which order they come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: Literal["center", "random"] = "center"
    shuffle: bool = True
    shuffle_shards: int = Field(4, ge=1, description="shards whose samples are mixed, and which are held at a time")

    def image_policy(self, size: int, channels: Literal[1, 3] = 3) -> ImagePolicy:
        """The policy that makes ``channels`` x ``size`` x ``size`` images by these settings."""
        return ImagePolicy(size=size, channels=channels, crop=self.crop)


@dataclass
class Batch:
    """``pixels``: uint8 (B, N, N, C), as decoders give them; ``labels``: int64 (B,), NO_LABEL where there is none."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.uint8]:
        """A view (B, C, N, N) of the pixels: taking the channels apart would cost a third of what decoding does."""
        return self.pixels.transpose(0, 3, 1, 2)


class Ingest:
    """Reads batches at any position; for one caller at a time. Close it, or use it in ``with``.

    How images are cropped is ``policy``'s matter (see :meth:`DataSettings.image_policy`); of
    ``settings`` only the order is read here.
    """

    def __init__(
        self,
        index: ShardIndex,
        policy: ImagePolicy,
        seed: int,
        settings: DataSettings,
        patience: Patience = USUAL_PATIENCE,
    ) -> None:
        counts = [len(shard.samples) for shard in index.shards]
        self._order = Order(counts, seed, settings.shuffle, settings.shuffle_shards)
        self._index, self._policy, self._seed = index, policy, seed
        self._store = _ShardStore(index, patience)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, first_image: int, count: int) -> Batch:
        """Samples ``first_image`` .. ``first_image + count - 1`` since the start of training.

        The same arguments give equal bytes whatever was called before; in sequence it is fast.
        Raises InputError naming shard and member of an image that cannot be decoded or a shard of another size,
        RunError for one that does not hold what was indexed, and what storage raises when it cannot be had.
        """
        if count < 1:
            raise InputError(f"a batch of {count} images cannot be made: at least 1 is needed")
        size = self._policy.size
        pixels = np.empty((count, size, size, self._policy.channels), np.uint8)
        labels = np.empty(count, np.int64)
        start, stop = first_image, first_image + count
        while start < stop:
            block_end = self._order.block_end(start)
            self._store.hold(self._order.block_of(start), self._order.block_of(block_end))
            for position in range(start, min(stop, block_end)):
                labels[position - first_image] = self._sample(position, pixels[position - first_image])
            start = block_end
        return Batch(pixels, labels)

    @property
    def refetched(self) -> int:
        """How often a shard was fetched again because it came damaged."""
        return self._store.refetched

    def close(self) -> None:
        """Let go of all shards, end the background thread and remove the spool folder."""
        self._store.close()

    def _sample(self, position: int, out: Pixels) -> int:
        """Puts the pixels at ``position`` into ``out`` (N, N, C); its label."""
        number, sample_number = self._order.locate(position)
        shard, policy = self._index.shards[number], self._policy
        sample = shard.samples[sample_number]
        data = self._store.read(number, sample.offset, sample.size_bytes)
        if sample.crc32 is not None and zlib.crc32(data) != sample.crc32:
            raise damaged(shard, f"{sample.image_name} at offset {sample.offset} has changed since it was mapped")
        name = f"{sample.image_name} in {shard.url}"
        image = decode_image(
            data, name, channels=policy.channels, background=policy.background, max_pixels=policy.max_pixels, into=out
        )
        if not np.may_share_memory(image, out):
            out[:] = fit_image(image, policy, self._seed, "crop", position).transpose(1, 2, 0)
        return NO_LABEL if sample.label is None else sample.label


class _ShardStore:
    """The bytes of the shards in use; a shard is checked here before any sample of it is read."""

    def __init__(self, index: ShardIndex, patience: Patience) -> None:
        self._shards, self._patience = index.shards, patience
        self.refetched = 0
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
            return self._maps[number].result()[offset : offset + size_bytes]
        except FreqganError:
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
        if folder.is_local:
            data = self._map(number, folder, name, check=number not in self._checked_on_disk)
            self._checked_on_disk.add(number)
            return data
        self._spool = self._spool or tempfile.TemporaryDirectory(prefix="freqgan-spool-")
        spool, copy = open_folder(self._spool.name), f"{number}.tar"
        for left in reversed(range(FETCHES)):
            folder.download(name, Path(spool.url) / copy, self._patience)
            try:
                return self._map(number, spool, copy, check=True)
            except FreqganError as error:
                if (size_bytes := folder.size(name)) != shard.size_bytes:
                    raise _changed(shard, size_bytes) from error
                if not left:
                    raise
                self.refetched += 1
            finally:
                # The map keeps the bytes; without a name they cannot outlive the process, not even a SIGKILL.
                spool.delete(copy)
        raise AssertionError("the last round returns or raises")

    def _map(self, number: int, folder: Folder, name: str, *, check: bool) -> mmap.mmap:
        shard, size_bytes = self._shards[number], folder.size(name)
        if size_bytes != shard.size_bytes:
            here = folder.url == split_object(shard.url)[0].url
            raise _changed(shard, size_bytes) if here else damaged(shard, f"only {size_bytes} bytes of it came")
        with folder.open(name) as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if check and (what := difference(shard, data)) is not None:
            data.close()
            raise damaged(shard, what)
        return data

    def _release(self, number: int) -> None:
        future = self._maps.pop(number)
        if not future.cancel():
            future.add_done_callback(_close_map)


def _changed(shard: Shard, size_bytes: int) -> InputError:
    return InputError(
        f"{shard.url} has {size_bytes} bytes, but had {shard.size_bytes} when it was indexed: "
        "it was replaced or cut off; restore it or index the data again"
    )


def _close_map(future: Future[mmap.mmap]) -> None:
    if future.exception() is None:
        future.result().close()
