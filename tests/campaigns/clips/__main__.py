"""``python -m tests.campaigns.clips data FOLDER [VIDEO ...]`` packs clips into FOLDER/train and FOLDER/test.

``python -m tests.campaigns.clips measure RUN DATA PICTURES`` measures a run's clips beside real ones that were made
wrong on purpose, redraws motion with the content fixed, and writes sheets of frames to look at.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.data.packing import pack
from cluster.evaluation.evaluate import real_images_for
from cluster.formats.source_format import PieceOptions
from cluster.imaging.pictures import encode_png
from cluster.imaging.shown_images import film_strips
from cluster.run.trained_model import open_model
from freqgan.generation.mixing import TIME, mixed_noises
from freqgan.metrics.evaluation import measure
from freqgan.metrics.temporal import change_distance, time_distances
from freqgan.model.clips import one_frame_each
from freqgan.pixels import to_pixels
from launch.drawing.grids import tile
from tests.campaigns.clips.real_clips import FRAMES, cuttings, pans, photographs
from tests.support.moving import WRONG

TRAIN, TEST = 6_000, 1_600
OF_VIDEOS = 0.4


def write_data(folder: Path, videos: list[Path]) -> None:
    """Packs clips of the photographs, and of ``videos`` where there are some."""
    pictures = photographs()
    for name, count, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        rng = np.random.default_rng(seed)
        of_videos = round(count * OF_VIDEOS) if videos else 0
        with tempfile.TemporaryDirectory() as temporary:
            number = 0
            for clips in (pans(pictures, count - of_videos, rng), cuttings(videos, of_videos, rng)):
                for clip in clips:
                    np.save(f"{temporary}/{number:05d}.npy", clip)
                    number += 1
            report = pack(temporary, str(folder / name), options=PieceOptions(frames=FRAMES))
        print(f"{folder / name}: {report.images} clips, {report.size_bytes / 2**20:.1f} MiB")


def generated(run: str, count: int) -> Tensor:
    """Clips of the newest checkpoint, uint8."""
    _, model = open_model(run)
    return torch.cat([to_pixels(model.sample(0, min(64, count - i), i).images) for i in range(0, count, 64)])


def measure_run(run: str, data: str, pictures: Path, count: int) -> None:
    """Prints the table, and writes the sheets."""
    checkpoint, model = open_model(run)
    settings = checkpoint.settings
    reference, other = real_images_for(settings, data, count, print)
    ours = generated(run, len(reference))
    kinds = {"real": other, "generated": ours} | {name: f(other, FRAMES) for name, f in WRONG.items()}
    distances = time_distances(FRAMES)
    names = ["".join(name) for name in distances]
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for kind, clips in kinds.items():
        values = [distance(reference, clips)[""] for distance in distances.values()]
        print(f"| {kind} | " + " | ".join(f"{value:.3g}" for value in values) + " |", flush=True)
    frames = measure(one_frame_each(reference, FRAMES), one_frame_each(ours, FRAMES))
    floors = measure(one_frame_each(reference, FRAMES), one_frame_each(other, FRAMES))
    for name in ("feature_frechet", "critic_accuracy", "sliced_wasserstein", "packet_frechet"):
        print(f"frames, {name}: {frames[name]:.3f}, real {floors[name]:.3f}")
    content, motion = model.draws(0, 64), model.draws(1, 64)
    first = model.draw(content).images
    moved = model.draw(mixed_noises(model.chain, content, motion, TIME)).images
    averages = [model.chain.transform.split_time(x)["tL"] for x in (first, moved)]
    spread = float((averages[0] - averages[0].roll(1, 0)).square().mean())
    stays = float((averages[0] - averages[1]).square().mean()) / spread
    pixels = [to_pixels(x) for x in (first, moved)]
    print(f"motion redrawn: averages differ by {stays:.2%} of how clips differ (squares)")
    changes = [x.view(64, FRAMES, 3, 32, 32).float().diff(dim=1) for x in pixels]
    moves = float((changes[0] - changes[1]).square().mean() / (changes[0] - changes[0].roll(1, 0)).square().mean())
    print(f"motion redrawn: changes differ by {moves:.2%} of how clips' changes differ (squares)")
    print(f"motion redrawn: change distance {change_distance(pixels[0], pixels[1], FRAMES):.2f} grey levels")
    pictures.mkdir(parents=True, exist_ok=True)
    for kind, clips in (kinds | {"motion-before": pixels[0], "motion-after": pixels[1]}).items():
        sheet = tile(film_strips(clips[:16], settings, most=FRAMES), 1, scale=2, gap=2)
        (pictures / f"{kind.replace(' ', '-')}.png").write_bytes(encode_png(sheet))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.clips", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    data_job = jobs.add_parser("data")
    data_job.add_argument("folder", type=Path)
    data_job.add_argument("videos", type=Path, nargs="*")
    measure_job = jobs.add_parser("measure")
    measure_job.add_argument("run")
    measure_job.add_argument("data")
    measure_job.add_argument("pictures", type=Path)
    measure_job.add_argument("--count", type=int, default=800)
    given = parser.parse_args()
    if given.job == "data":
        write_data(given.folder, given.videos)
    else:
        measure_run(given.run, given.data, given.pictures, given.count)
