"""Images a second from shards of real JPEGs, beside webdataset's own decoder and beside nothing but the decoder.

32 pixels from CIFAR-10, 256 pixels made of photographs of clothes, with an index (sizes, sha256, crc32: all checked).
The peer is ``webdataset.WebDataset(...).decode("rgb8")``, which checks nothing and gives single images; ours gives the
batches that a training gets, in its order. "bare" decodes what it has in memory: the bound of what any reader can do.
Rates are those of all processes together over the same time, the best of three.
"""

from __future__ import annotations

import io
import multiprocessing as mp
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import boto3
import simplejpeg
from PIL import Image, ImageOps

from cluster.data.packing import pack
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.storage.folder import open_folder
from tests.benchmarks.harness import Comparison
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server

SHARED = Path(__file__).parents[3] / "shared" / "data"
BATCH = 64
SECONDS = 2.0
ROUNDS = 3
CLOTHES_SIDE = 256
SHARD_IMAGES = {32: 2500, CLOTHES_SIDE: 250}
IMAGES = {32: 10_000, CLOTHES_SIDE: 1_000}

Reader = Callable[[str, int, int, int], Iterator[int]]
"""(folder, side, process, processes) -> how many images came, time and again, without end."""


def ours(folder: str, side: int, number: int, count: int) -> Iterator[int]:
    """Batches in turns with the other processes, checked against the index."""
    index = build_index(folder)
    with BatchReader(index, ImagePolicy(size=side), 0, DataSettings()) as ingest:
        step = number
        while True:
            ingest.batch(step * BATCH, BATCH)
            step += count
            yield BATCH


def webdataset(folder: str, side: int, number: int, count: int) -> Iterator[int]:
    """Its own shards each; decoded as in its documentation."""
    import webdataset as wds

    shards = [str(path) for path in sorted(Path(folder).glob("*.tar"))][number::count]
    while True:
        for _ in wds.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls"):
            yield 1


def bare(folder: str, side: int, number: int, count: int) -> Iterator[int]:
    """Pixels, and nothing else: where they lie is known."""
    shards = []
    for path in sorted(Path(folder).glob("*.tar"))[number::count]:
        with tarfile.open(path) as tar:
            places = [(m.offset_data, m.size) for m in tar if m.name.endswith(".jpg")]
        shards.append((path.read_bytes(), places))
    while True:
        for data, places in shards:
            for offset, size_bytes in places:
                simplejpeg.decode_jpeg(data[offset : offset + size_bytes], "RGB")
                yield 1


def measured(pipe: Connection, reader: Reader, arguments: tuple[str, int, int, int]) -> None:
    """In a process: warms up, waits for the word, and counts for SECONDS, ROUNDS times."""
    counts = reader(*arguments)
    read = 0
    while read < 500:
        read += next(counts)
    pipe.send(0.0)
    for _ in range(ROUNDS):
        pipe.recv()
        read, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < SECONDS:
            read += next(counts)
        pipe.send(read / (time.perf_counter() - begun_s))


def rate(reader: Reader, folder: str, side: int, processes: int) -> float:
    """Images a second of all processes together."""
    context = mp.get_context("spawn")
    pipes, running = [], []
    for number in range(processes):
        pipe, other = context.Pipe()
        running.append(
            context.Process(target=measured, args=(other, reader, (folder, side, number, processes)), daemon=True)
        )
        running[-1].start()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    rates = []
    for _ in range(ROUNDS):
        for pipe in pipes:
            pipe.send(None)
        rates.append(sum(float(pipe.recv()) for pipe in pipes))
    for process in running:
        process.kill()
        process.join()
    return max(rates)


def jpegs(side: int) -> Iterator[bytes]:
    """Real JPEGs of ``side`` pixels."""
    if side == 32:
        source, kind = sorted((SHARED / "cifar10").glob("train-*.tar")), ".jpg"
    else:
        source, kind = sorted((SHARED / "clothing").glob("*.tar")), ".jpg"
    for path in source:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(kind):
                    file = tar.extractfile(member)
                    assert file is not None
                    data = file.read()
                    yield data if side == 32 else resized(data, side)


def resized(data: bytes, side: int) -> bytes:
    """A square of ``side`` pixels from the middle, as a JPEG of quality 90."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        ImageOps.fit(image.convert("RGB"), (side, side)).save(out, "JPEG", quality=90)
    return out.getvalue()


def packed(folder: Path, side: int) -> str:
    """Shards with an index."""
    images = folder / f"images-{side}"
    for number, data in zip(range(IMAGES[side]), jpegs(side), strict=False):
        path = images / f"class{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    shards = folder / f"shards-{side}"
    pack(str(images), str(shards), shard_samples=SHARD_IMAGES[side])
    return str(shards)


@contextmanager
def in_a_bucket(shards: str) -> Iterator[str]:
    """A copy of ``shards`` on a real S3 server in a process of its own."""
    context = mp.get_context("spawn")
    pipe, other = context.Pipe()
    server = context.Process(target=serve, args=(other,), daemon=True)
    server.start()
    endpoint = pipe.recv()
    import pytest

    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in aws_variables(endpoint).items():
                patch.setenv(name, value)
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
            folder = open_folder(f"s3://{BUCKET}/shards")
            for path in Path(shards).iterdir():
                folder.upload(path, path.name)
            yield folder.url
    finally:
        server.kill()
        server.join()


def serve(pipe: Connection) -> None:
    """The server, until it is killed."""
    import logging

    logging.disable(logging.INFO)
    with running_s3_server() as endpoint:
        pipe.send(endpoint)
        time.sleep(3600)


def server_limit(url: str, images: int) -> float:
    """Images a second that the server gives to one who only reads the shards."""
    import os

    folder = open_folder(url)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    links = [
        client.generate_presigned_url(
            "get_object", Params={"Bucket": BUCKET, "Key": f"{url.partition(BUCKET + '/')[2]}/{name}"}
        )
        for name in folder.files()
        if name.endswith(".tar")
    ]
    seconds = []
    for _ in range(ROUNDS):
        begun_s = time.perf_counter()
        for link in links:
            with urllib.request.urlopen(link) as answer:
                answer.read()
        seconds.append(time.perf_counter() - begun_s)
    return images / min(seconds)


def comparisons() -> Iterable[Comparison]:
    """Both sizes, one process and two; then from a bucket."""
    if not SHARED.is_dir():
        return
    with tempfile.TemporaryDirectory() as temporary:
        for side in IMAGES:
            shards = packed(Path(temporary), side)
            for processes in (1, 2):
                found = {r.__name__: rate(r, shards, side, processes) for r in (ours, webdataset, bare)}
                name, how = (
                    f"{side} px, {processes} process{'es' * (processes > 1)}",
                    f"best of {ROUNDS} x {SECONDS:g} s",
                )
                yield Comparison(f"{name} / webdataset rgb8", found["ours"], found["webdataset"], "images/s", True, how)
                yield Comparison(f"{name} / bare decoder", found["ours"], found["bare"], "images/s", True, how)
            local = rate(ours, shards, side, 1)
            with in_a_bucket(shards) as url:
                limit = server_limit(url, IMAGES[side])
                there = rate(ours, url, side, 1)
            how = f"1 process; the server alone gives {limit:.3g} images/s"
            yield Comparison(f"{side} px from S3 / local", there, min(local, limit), "images/s", True, how)
