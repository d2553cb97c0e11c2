"""Batches of images for training: decoded once, a pure function of (seed, data, position).

Shards are fetched one block of the order ahead, and those outside this block and the next are let go, so memory and
disk stay bounded by two blocks. What the index knows is checked: the sha256 of a shard by the store that fetches it
(:mod:`cluster.data.shard_store`), the crc32 of an image when it is read. What stays damaged is an error or, where that
is wanted, reported image by image, so that a batch can be had without it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cluster.data.decoding import Pixels, TooLargeError
from cluster.data.exclusion_list import ExclusionList
from cluster.data.quarantine import WHOLE_SHARD, DamageFoundError, QuarantinedImage, check_some_are_left, images_of
from cluster.data.sampler import BlockShuffle
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_cache import ShardCache
from cluster.data.shard_index import DamagedError, damaged
from cluster.data.shard_store import ShardStore, UnusableError
from cluster.data.shards import ShardSet
from cluster.data.stored_images import read_image
from cluster.data.targets import SampleFiles, TargetReader, label_of, sample_fields
from cluster.storage.timeouts import USUAL_PATIENCE, ReadTimeouts
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError

Targets = NDArray[np.int64] | NDArray[np.float32]


@dataclass
class Batch:
    """The images of a step.

    Attributes:
        pixels: uint8, uint16 or float32 (B, N, N, C), as decoders give them; of clips C are those of all frames.
        targets: float32 (B, K), packed; where targets are labels alone int64 (B,), NO_LABEL for an image without one.

    """

    pixels: Pixels
    targets: Targets

    @property
    def images(self) -> Pixels:
        """The pixels as a view (B, C, N, N): taking the channels apart would cost a third of what decoding does."""
        return self.pixels.transpose(0, 3, 1, 2)


class BatchReader:
    """Reads batches at any position; for one caller at a time. Close it, or use it in ``with``.

    How images are cropped is ``policy``'s matter (see :meth:`DataSettings.image_policy`); of
    ``settings`` only the order is read here.

    Args:
        index: all shards.
        policy: what becomes of an image.
        seed: of order and crops.
        settings: of the order.
        patience: with storage.
        most_damaged: where given, damage raises DamageFoundError with so many images at a time and one more; else the
            first damage is an error.
        cache: of shards of buckets.
        targets: reads what lies beside images; where not given, targets are labels.

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
        targets: TargetReader | None = None,
    ) -> None:
        counts = [len(shard.samples) for shard in index.shards]
        self._order = BlockShuffle(counts, seed, settings.shuffle, settings.shuffle_shards)
        self._index, self._policy, self._seed = index, policy, seed
        self._omissions, self._most_damaged = ExclusionList(self._order), most_damaged
        self._targets, self._first_numbers = targets, np.cumsum([0, *counts])
        self._reads_fields = policy.frames > 1 or policy.bit_depth == FLOAT_BITS
        members = {*(targets.members if targets is not None else ()), *(("json",) if self._reads_fields else ())}
        self._store = ShardStore(index, patience, cache, tolerant=most_damaged is not None, members=members)
        self._reported: set[int] = set()
        """Shards whose damage beside their images is known."""
        self._left_out: dict[tuple[int, int], QuarantinedImage] = {}

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, first_image: int, count: int) -> Batch:
        """Return samples ``first_image`` .. ``first_image + count - 1`` since the start of training.

        The same arguments give equal bytes whatever was called before, as long as the same images are left out; in
        sequence it is fast.

        Raises:
            InputError: an image that cannot be decoded, or a target that cannot be read, with its shard and name, or a
                shard of another size.
            RunError: a shard that does not hold what was indexed, and what storage raises when it cannot be had.
            DamageFoundError: any of the two, where ``most_damaged`` is given.

        """
        if count < 1:
            raise InputError(f"a batch of {count} images cannot be made: at least 1 is needed")
        pixels = np.empty((count, *self._policy.shape, self._policy.planes), self._policy.dtype)
        targets = self._blank_targets(count)
        damage: list[QuarantinedImage] = []
        first_position = position = held_until = self._omissions.position_of(first_image)
        done = 0
        while done < count:
            if position >= held_until:
                held_until = self._hold(position)
            if not self._omissions.passes_over(position):
                try:
                    targets[done] = self._sample(position, pixels[done])
                    done += 1
                except (DamagedError, UnusableError) as error:
                    if self._most_damaged is None:
                        raise
                    damage.append(self._damaged_image(position, error))
                    if len(damage) > min(self._most_damaged, self._order.sample_count):
                        break
            position += 1
        damage += self._damaged_shards(first_position)
        if damage:
            first_met = {one.key: one for one in reversed(damage)}  # a batch of a small set may come to an image twice
            raise DamageFoundError(tuple(reversed(first_met.values())))
        return Batch(pixels, targets)

    def leave_out(self, images: Sequence[QuarantinedImage]) -> None:
        """Pass over ``images`` from now on, each from its position on; RunError where none is left."""
        self._reported |= {one.shard_number for one in images if one.sample_number == WHOLE_SHARD}
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
        """Have the shards of the block of ``position`` fetched, and those of the next; return the end of the block."""
        end = self._order.block_end(position)
        self._store.hold(self._order.block_of(position), self._order.block_of(end))
        return end

    def _damaged_shards(self, position: int) -> list[QuarantinedImage]:
        """Return the shards of which only headers or padding are damaged, unless they are reported already."""
        return [
            QuarantinedImage(self._index.shards[number].url, "", str(error), number, WHOLE_SHARD, position)
            for number, error in sorted(self._store.damage_beside_images.items())
            if number not in self._reported
        ]

    def _damaged_image(self, position: int, error: Exception) -> QuarantinedImage:
        number, sample_number = self._order.locate(position)
        shard = self._index.shards[number]
        name = shard.samples[sample_number].image_name
        return QuarantinedImage(shard.url, name, str(error), number, sample_number, position)

    def _blank_targets(self, count: int) -> Targets:
        if self._targets is None:
            return np.empty(count, np.int64)
        return np.empty((count, self._targets.layout.width), np.float32)

    def _sample(self, position: int, out: Pixels) -> int | NDArray[np.float32]:
        """Put the pixels at ``position`` into ``out`` (N, N, C) and return the label, or the target (K,)."""
        number, sample_number = self._order.locate(position)
        shard, policy = self._index.shards[number], self._policy
        sample = shard.samples[sample_number]
        data = self._store.read(number, sample.offset, sample.size_bytes)
        if sample.crc32 is not None and zlib.crc32(data) != sample.crc32:
            raise damaged(shard, f"{sample.image_name} at offset {sample.offset} is not what was indexed")
        name = f"{sample.image_name} in {shard.url}"
        files = SampleFiles(
            shard, sample, partial(self._store.read, number), int(self._first_numbers[number]) + sample_number
        )
        fields = sample_fields(files) if self._reads_fields else {}
        try:
            image = read_image(data, name, policy, fields, self._seed, "crop", position, into=out)
        except TooLargeError as error:
            raise UnusableError(f"{error}, or train with a larger ingest.max_pixels") from error
        except InputError as error:
            raise UnusableError(str(error)) from error
        if not np.may_share_memory(image, out):
            out[:] = image.transpose(1, 2, 0)
        return label_of(sample) if self._targets is None else self._targets.row(files, position)


def reader_without(reader_factory: Callable[[], BatchReader], left_out: Sequence[QuarantinedImage]) -> BatchReader:
    """Return a reader that passes over ``left_out`` from the start."""
    reader = reader_factory()
    reader.leave_out(left_out)
    return reader
