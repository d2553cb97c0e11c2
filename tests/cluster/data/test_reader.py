from __future__ import annotations

import os
import tempfile
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cluster.data.decoding import decode_image, fit_image
from cluster.data.reader import Batch, BatchReader
from cluster.data.sampler import BlockShuffle, permutation
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.data.shards import ShardSet
from cluster.data.targets import NO_LABEL
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from tests.support.s3_server import BUCKET
from tests.support.shards import SHARED_CIFAR10, image_bytes, upload, write_tar

COUNTS = [5, 1, 7, 3, 4, 6, 2]
POLICY = ImagePolicy(size=8)


@pytest.mark.parametrize("block_shards", [1, 2, 4, 7, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_is_a_permutation(block_shards: int, shuffle: bool) -> None:
    order = BlockShuffle(COUNTS, seed=3, shuffle=shuffle, block_shards=block_shards)
    everything = [(shard, sample) for shard, count in enumerate(COUNTS) for sample in range(count)]
    epochs = [[order.locate(28 * epoch + index) for index in range(28)] for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == everything
    if shuffle:
        assert len({tuple(epoch) for epoch in [*epochs, everything]}) == 5
    else:
        assert all(epoch == everything for epoch in epochs)


def test_the_order_does_not_depend_on_what_was_asked_before() -> None:
    positions = np.random.default_rng(0).integers(0, 28 * 5, 300).tolist()
    order = BlockShuffle(COUNTS, seed=3)
    for position in positions:
        fresh = BlockShuffle(COUNTS, seed=3)
        assert order.locate(position) == fresh.locate(position)
        assert order.block_of(position) == fresh.block_of(position)
        assert order.block_end(position) == fresh.block_end(position)


def test_blocks_hold_the_shards_that_are_read() -> None:
    order = BlockShuffle(COUNTS, seed=3, block_shards=3)
    position, blocks = 0, []
    while position < 2 * 28:
        end = order.block_end(position)
        read = {order.locate(index)[0] for index in range(position, end)}
        assert read == set(order.block_of(position))
        assert all(order.block_of(index) == order.block_of(position) for index in range(position, end))
        blocks.append(order.block_of(position))
        position = end
    assert position == 2 * 28
    assert [len(block) for block in blocks] == [3, 3, 1, 3, 3, 1]
    assert sorted(sum(blocks[:3], ())) == sorted(sum(blocks[3:], ())) == list(range(7))


def test_seeds_give_other_orders() -> None:
    orders = {tuple(BlockShuffle(COUNTS, seed).locate(index) for index in range(28)) for seed in range(5)}
    assert len(orders) == 5


def test_the_permutation_never_changes() -> None:
    """A run that is resumed under another release must go on in the order it began."""
    assert permutation(10, 1, "samples", 2).tolist() == [7, 2, 0, 8, 3, 5, 4, 1, 6, 9]


@pytest.mark.parametrize(
    ("counts", "block_shards", "message"),
    [([], 4, "0 shards hold 0 samples"), ([0, 0], 4, "2 shards hold 0 samples"), ([3], 0, "shuffle_shards is 0")],
)
def test_orders_that_cannot_be(counts: list[int], block_shards: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BlockShuffle(counts, seed=0, block_shards=block_shards)
    with pytest.raises(InputError, match="position -1 lies before the first sample"):
        BlockShuffle([3], seed=0).locate(-1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven shards of COUNTS images: some larger than 8 x 8, of three formats, every fourth without a label."""
    folder = tmp_path_factory.mktemp("shards")
    number = 0
    for shard, count in enumerate(COUNTS):
        members = {}
        for _ in range(count):
            kind = ("JPEG", "PNG", "WEBP")[number % 3]
            members[f"{number:04d}.{kind.lower()}"] = image_bytes(number, kind, size=8 + number % 5)
            if number % 4:
                members[f"{number:04d}.cls"] = str(number).encode()
            number += 1
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


@pytest.fixture(scope="module")
def index(shards: Path) -> ShardSet:
    return build_index(str(shards))


def equal(one: Batch, two: Batch) -> bool:
    return one.images.tobytes() == two.images.tobytes() and one.targets.tobytes() == two.targets.tobytes()


def test_batches_hold_the_images_of_the_order(index: ShardSet) -> None:
    order = BlockShuffle(COUNTS, seed=5, block_shards=2)
    with BatchReader(index, POLICY, 5, DataSettings(shuffle_shards=2)) as ingest:
        batch = ingest.batch(10, 60)
    assert batch.images.shape == (60, 3, 8, 8)
    assert (batch.images.dtype, batch.targets.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
    for row in range(60):
        shard, sample = order.locate(10 + row)
        number = sum(COUNTS[:shard]) + sample
        data = image_bytes(number, ("JPEG", "PNG", "WEBP")[number % 3], size=8 + number % 5)
        np.testing.assert_array_equal(batch.images[row], fit_image(decode_image(data, "x"), POLICY))
        assert batch.targets[row] == (number if number % 4 else NO_LABEL)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_independent_of_what_was_called_before(index: ShardSet, shuffle: bool) -> None:
    settings = DataSettings(shuffle=shuffle, shuffle_shards=2)
    with BatchReader(index, POLICY, 5, settings) as ingest:
        batches = [ingest.batch(first, 9) for first in range(0, 90, 9)]
    with BatchReader(index, POLICY, 5, settings) as ingest:
        for number in np.random.default_rng(1).permutation(10).tolist():
            assert equal(ingest.batch(9 * number, 9), batches[number])
    for number in (0, 4, 9):
        with BatchReader(index, POLICY, 5, settings) as resumed:
            assert equal(resumed.batch(9 * number, 9), batches[number])


def test_batch_size_does_not_change_the_stream(index: ShardSet) -> None:
    with BatchReader(index, POLICY, 5, DataSettings()) as ingest:
        whole = ingest.batch(0, 60)
        parts = [ingest.batch(first, 4) for first in range(0, 60, 4)]
    assert whole.images.tobytes() == b"".join(part.images.tobytes() for part in parts)
    assert whole.targets.tobytes() == b"".join(part.targets.tobytes() for part in parts)


def test_random_crops_are_replayed(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (8, 40, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    write_tar(tmp_path / "x.tar", {"1.png": (tmp_path / "wide.png").read_bytes()})
    policy = DataSettings(crop="random").image_policy(8)
    with BatchReader(build_index(str(tmp_path)), policy, 5, DataSettings()) as ingest:
        batch = ingest.batch(0, 20)
        assert len({image.tobytes() for image in batch.images}) > 10
        assert ingest.batch(13, 1).images.tobytes() == batch.images[13].tobytes()


def test_one_channel(index: ShardSet) -> None:
    with BatchReader(index, DataSettings().image_policy(8, channels=1), 5, DataSettings()) as ingest:
        assert ingest.batch(0, 5).images.shape == (5, 1, 8, 8)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spool folders are made in this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def test_a_bucket_gives_the_bytes_of_a_folder(index: ShardSet, shards: Path, s3_server: str, spool: Path) -> None:
    settings = DataSettings(shuffle_shards=2)
    remote = build_index(upload(shards))
    assert [shard.samples for shard in remote.shards] == [shard.samples for shard in index.shards]
    with BatchReader(index, POLICY, 5, settings) as ingest:
        batches = [ingest.batch(first, 9) for first in range(0, 90, 9)]
        assert os.listdir(spool) == []
    with BatchReader(remote, POLICY, 5, settings) as ingest:
        for number in [*range(10), 7, 1, 8]:
            assert equal(ingest.batch(9 * number, 9), batches[number])
        assert len(os.listdir(spool)) == 1
    assert os.listdir(spool) == []


def test_close_ends_the_thread(index: ShardSet) -> None:
    with BatchReader(index, POLICY, 5, DataSettings()) as ingest:
        ingest.batch(0, 1)
        fetchers = [thread for thread in threading.enumerate() if thread.name.startswith("freqgan-fetch")]
        assert len(fetchers) == 1
    assert not fetchers[0].is_alive()


def test_at_most_two_blocks_are_held(shards: Path, s3_server: str, spool: Path) -> None:
    remote = build_index(upload(shards))
    order = BlockShuffle(COUNTS, seed=5, block_shards=2)
    with BatchReader(remote, POLICY, 5, DataSettings(shuffle_shards=2)) as ingest:
        for position in [*range(0, 60, 3), 2, 55]:
            ingest.batch(position, 1)
            allowed = {*order.block_of(position), *order.block_of(order.block_end(position))}
            assert set(ingest._store._maps) == allowed
        for future in ingest._store._maps.values():
            future.result()
        # Mapped files have no name any more: nothing is left to clean up after a SIGKILL.
        (folder,) = spool.iterdir()
        assert list(folder.iterdir()) == []


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1), "2.jpg": image_bytes(2)[:-30]})
    with (
        BatchReader(build_index(str(tmp_path)), POLICY, 0, DataSettings(shuffle=False)) as ingest,
        pytest.raises(InputError, match=r"2\.jpg in .*/x\.tar is damaged or cut off .*replace or remove it"),
    ):
        ingest.batch(0, 2)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_shard_that_changed_or_went_is_named(tmp_path: Path, s3_server: str, place: str) -> None:
    url = str(tmp_path) if place == "disk" else f"s3://{BUCKET}/{uuid.uuid4().hex}"
    whole = write_tar(tmp_path / "x.tar", {"1.jpg": image_bytes(1)}).read_bytes()
    folder = open_folder(url)
    folder.write("x.tar", whole)
    index = build_index(url)
    with BatchReader(index, POLICY, 0, DataSettings()) as ingest:
        folder.write("x.tar", whole[:-512])
        with pytest.raises(InputError, match=rf"{url}/x\.tar has 9728 bytes, but had 10240 when it was indexed"):
            ingest.batch(0, 1)
        folder.delete("x.tar")
        with pytest.raises(InputError, match=rf"{url}/x\.tar: no such"):
            ingest.batch(0, 1)
        folder.write("x.tar", whole)
        assert ingest.batch(0, 1).images.shape == (1, 3, 8, 8)


def test_settings_refuse_what_they_do_not_know(index: ShardSet) -> None:
    for settings in ({"shufle": True}, {"shuffle_shards": 0}, {"crop": "left"}):
        with pytest.raises(ValidationError):
            DataSettings.model_validate(settings)
    with (
        BatchReader(index, POLICY, 0, DataSettings()) as ingest,
        pytest.raises(InputError, match="a batch of 0 images cannot be made"),
    ):
        ingest.batch(0, 0)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED_CIFAR10.is_dir(), reason="the images of ../shared/data are not here")
def test_cifar10_in_batches() -> None:
    index = build_index(str(SHARED_CIFAR10 / "test-*.tar"))
    with BatchReader(index, DataSettings().image_policy(32), 1, DataSettings(shuffle_shards=1)) as ingest:
        labels = np.concatenate([ingest.batch(first, 500).targets for first in range(0, 10_000, 500)])
    assert np.bincount(labels).tolist() == [1000] * 10


@pytest.mark.filterwarnings("error")
def test_a_larger_max_pixels_takes_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write_tar(tmp_path / "a.tar", {"0.png": image_bytes(0)})
    index = build_index(str(tmp_path))
    side = decode_image(image_bytes(0), "x").shape[0]
    with BatchReader(index, DataSettings(max_pixels=side * side).image_policy(8), 0, DataSettings()) as ingest:
        assert ingest.batch(0, 1).pixels.shape == (1, 8, 8, 3)
    small = DataSettings(max_pixels=side * side - 1).image_policy(8)
    with BatchReader(index, small, 0, DataSettings()) as ingest, pytest.raises(InputError) as told:
        ingest.batch(0, 1)
    assert str(told.value) == (
        f"0.png in {tmp_path}/a.tar has {side} x {side} pixels, more than the {side * side - 1} allowed: "
        "make it smaller, or train with a larger ingest.max_pixels"
    )
