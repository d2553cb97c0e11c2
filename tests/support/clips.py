"""Frames that move, and the files of videos, animations and frames that real libraries write of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.data.decoding import decode_image
from cluster.data.shard_index import build_index
from cluster.formats.arrays import NPY_MAGIC, decode_npy
from cluster.storage.folder import open_folder

Frames = NDArray[np.uint8]


def moving_frames(count: int, height: int = 16, width: int = 24, scene: int = 0) -> Frames:
    """Frames (T, H, W, 3): a smooth picture of its own for every scene, which shifts by a pixel a frame."""
    rows, columns = np.mgrid[0:height, 0:width]
    phases = np.random.default_rng(scene).uniform(0, 2 * np.pi, (3, 2))
    level = 60 + 130 * (scene % 2)
    frames = [
        np.stack([level + 30 * np.sin(rows / 5 + a) * np.cos((columns + number) / 7 + b) for a, b in phases], axis=2)
        for number in range(count)
    ]
    return np.stack(frames).round().clip(0, 255).astype(np.uint8)


def video_bytes(frames: Frames, fps: int = 25, container: str = "matroska", codec: str = "ffv1") -> bytes:
    """A video of RGB frames; ffv1 of bgr0 loses nothing."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


def write_frames(folder: Path, frames: Frames, first: int = 1, step: int = 1) -> None:
    """Each frame as a PNG called by its number, without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame-{first + step * number}.png")


def packed_samples(url: str) -> list[tuple[NDArray[Any], dict[str, Any], int | None]]:
    """The image (H, W, C), the fields and the label of every sample at ``url``, in their order."""
    samples = []
    for shard in build_index(url).shards:
        data = open_folder(url).read(shard.url.rpartition("/")[2])
        for sample in shard.samples:
            image = data[sample.offset : sample.offset + sample.size_bytes]
            is_array = image.startswith(NPY_MAGIC)
            pixels = decode_npy(image, "x") if is_array else decode_image(image, "x")
            beside = sample.member("json")
            fields = json.loads(data[beside.offset : beside.offset + beside.size_bytes]) if beside else {}
            samples.append((pixels, fields, sample.label))
    return samples
