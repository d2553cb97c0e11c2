"""Shards with one bit flipped or cut anywhere: is it noticed, is the rest of it used, does a second fetch mend it?

``python -m tests.campaigns.damage [COUNT]`` (``make damage``): so many flips and so many cuts of a shard on a disk, and
as many of one on its way from a real S3 server over HTTP. Ends with 1 unless all were noticed and all samples were
right, or left out where they were not.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np

from cluster.data.decoding import Pixels
from cluster.data.quarantine import WHOLE_SHARD, DamageFoundError, QuarantinedImage
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import ShardSet
from cluster.storage.folder import Folder, open_folder
from cluster.storage.timeouts import USUAL_PATIENCE, ReadTimeouts
from freqgan.errors import FreqganError
from tests.support.damages import damages
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server
from tests.support.shards import shard_members, write_tar

COUNT = 2_000
IMAGES = 8


def read(index: ShardSet) -> tuple[Pixels, int]:
    """All images of the index in their order, and how often a shard was fetched again."""
    with BatchReader(index, ImagePolicy(size=8), 0, DataSettings(shuffle=False)) as ingest:
        return ingest.batch(0, IMAGES).images, ingest.refetched


def on_disk(path: Path, index: ShardSet, count: int) -> int:
    """How many kinds of damage were noticed."""
    whole, noticed = path.read_bytes(), 0
    for name, damage in damages(len(whole), count):
        path.write_bytes(damage(whole))
        try:
            read(index)
            print(f"on disk, not noticed: {name}")
        except FreqganError:
            noticed += 1
    path.write_bytes(whole)
    return noticed


def left_out(path: Path, index: ShardSet, count: int, right: Pixels) -> int:
    """After how many a training is told what is damaged, and gets exactly the images that are whole."""
    whole, exact = path.read_bytes(), 0
    for name, damage in damages(len(whole), count):
        path.write_bytes(damage(whole))
        told, images = _without_damage(index)
        bad = {one.sample_number for one in told}
        if told and (images == np.delete(right, sorted(bad - {WHOLE_SHARD}), axis=0)).all():
            exact += 1
        else:
            print(f"left out {sorted(bad)}: {name}")
    path.write_bytes(whole)
    return exact


def _without_damage(index: ShardSet) -> tuple[list[QuarantinedImage], Pixels]:
    told: list[QuarantinedImage] = []
    with BatchReader(index, ImagePolicy(size=8), 0, DataSettings(shuffle=False), most_damaged=IMAGES) as ingest:
        while True:
            try:
                left = IMAGES - sum(one.sample_number != WHOLE_SHARD for one in told)
                return told, ingest.batch(0, left).images if left else np.empty((0, 3, 8, 8), np.uint8)
            except DamageFoundError as error:
                told += {one.key: one for one in error.found}.values()
                if sum(one.sample_number != WHOLE_SHARD for one in told) < IMAGES:
                    ingest.leave_out(error.found)


def on_the_way(path: Path, count: int, right: Pixels) -> int:
    """After how many the shard was fetched once more and all samples were right."""
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
    folder, download, pending = open_folder(f"s3://{BUCKET}/damage"), Folder.download, list[Callable[[bytes], bytes]]()
    for file in path.parent.iterdir():
        folder.upload(file, file.name)
    index, mended = build_index(folder.url), 0

    def damaging(self: Folder, name: str, path: Path, timeouts: ReadTimeouts = USUAL_PATIENCE) -> None:
        download(self, name, path, timeouts)
        if pending:
            path.write_bytes(pending.pop()(path.read_bytes()))

    Folder.download = damaging  # type: ignore[method-assign]
    try:
        for name, damage in damages(path.stat().st_size, count):
            pending.append(damage)
            images, refetched = read(index)
            if refetched == 1 and (images == right).all():
                mended += 1
            else:
                print(f"on the way, not mended: {name}")
    finally:
        Folder.download = download  # type: ignore[method-assign]
    return mended


def main(count: int) -> int:
    """Runs both and prints a line each."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the server's, a line for every request
    with tempfile.TemporaryDirectory() as temporary, running_s3_server() as endpoint:
        os.environ |= aws_variables(endpoint)
        path = write_tar(Path(temporary) / "shard.tar", shard_members(0, IMAGES))
        index_shards(temporary)
        index = build_index(temporary)
        right, _ = read(index)
        begun_s = time.monotonic()
        noticed = on_disk(path, index, count)
        print(f"on a disk: {count} flipped bits, {count} cuts: {noticed} of {2 * count} noticed")
        exact = left_out(path, index, count, right)
        print(f"the same in a training: {exact} of {2 * count} told, damaged images left out, all others right")
        mended = on_the_way(path, count, right)
        print(f"on the way from S3: {mended} of {2 * count} noticed, fetched again, all samples right")
        print(f"{time.monotonic() - begun_s:.0f} s, shards of {path.stat().st_size} bytes and {IMAGES} images")
    return int(noticed + exact + mended < 6 * count)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else COUNT))
