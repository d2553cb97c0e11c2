"""Distances of clips: whether they move as real ones do. No weights are learnt, but for those of a small critic.

Clips are uint8 (N, T C, H, W), the channels of their frames one after the other. Each distance sees what the ones of
frames cannot: clips that stand still, frames in a wrong order, changes that are those of another clip, blur in time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import TIME_LOW, Band
from freqgan.metrics.bands import QUANTISATION
from freqgan.metrics.features import whitened
from freqgan.metrics.frechet import frechet_distance
from freqgan.metrics.two_sample_test import told_apart
from freqgan.model.band_statistics import BandMoments
from freqgan.model.clips import apart
from freqgan.seeds import generator_for
from freqgan.transforms import ClipTransform, parse_transform

WIDTHS = (16, 32, 64)
KERNEL = 3
CHUNK = 100
FAINTEST = 1.0
"""As for the features of images, see :func:`freqgan.metrics.features.whitened`."""
MOST_CLIPS = 2_000
"""Clips of either kind that are looked at by features, critic and block matching, which take longest."""
BLOCK, REACH = 8, 3
"""Pixels of a side of the blocks whose motion is looked for, and by how much they may move from frame to frame."""
STILL = 0.5
"""Grey levels that a match has to be better by, on average, than that of a block that stands still: else it does."""
QUANTILES = 1_000
TINY = 1e-3


def time_distances(frames: int) -> dict[str, Callable[[Tensor, Tensor], dict[str, float]]]:
    """Return the distances of clips (N, T C, H, W) of T = ``frames`` frames by family; low is good.

    Each gives values by suffix.
    """
    return {
        "clip_frechet": lambda a, b: {"": feature_distance(a, b, frames)},
        "clip_bands": partial(band_distances, frames=frames),
        "clip_critic": partial(critic_scores, frames=frames),
        "clip_change": lambda a, b: {"": change_distance(a, b, frames)},
        "clip_motion": lambda a, b: {"": motion_distance(a, b, frames)},
        "clip_blockiness": lambda a, b: {"": abs(blockiness(b, frames) - blockiness(a, frames))},
    }


# -- features --------------------------------------------------------------------------------------


def feature_distance(reference: Tensor, candidate: Tensor, frames: int) -> float:
    """Return the Frechet distance of clips (N, T C, H, W) by :func:`clip_features`, whitened by the reference."""
    first, second = (clip_features(x[:MOST_CLIPS], frames) for x in (reference, candidate))
    return frechet_distance(*whitened(first, second, FAINTEST))


def clip_features(clips: Tensor, frames: int) -> Tensor:
    """Return float32 features (N, 16 + 32 + 64) of clips (N, T C, H, W): means of rectified random 3-D convolutions.

    They see the differences of neighbouring frames: of the frames themselves nine tenths of what they see is what is
    in them, and clips whose changes are those of others or blurred stood out by a third, not five times (measured on
    squares that move). Every stage halves space and time by averaging. The weights are drawn from a fixed seed.
    """
    kernels = _kernels(clips.shape[1] // frames)
    rows = []
    for chunk in torch.split(clips, CHUNK):
        x = apart(chunk, frames).float().diff(dim=1).transpose(1, 2) / 64  # (N, C, T - 1, H, W)
        stages = []
        for kernel in kernels:
            x = functional.relu(functional.conv3d(x, kernel, padding=KERNEL // 2))
            stages.append(x.mean(dim=(2, 3, 4)))
            x = functional.avg_pool3d(x, [min(2, side) for side in x.shape[2:]], ceil_mode=True)
        rows.append(torch.cat(stages, dim=1))
    return torch.cat(rows)


def _kernels(channels: int) -> list[Tensor]:
    """Return weights ~ N(0, 2 / fan_in) of every stage, the same on every machine."""
    kernels, inputs = [], channels
    for width in WIDTHS:
        rng = generator_for("random features of clips", width)
        drawn = torch.randn(width, inputs, KERNEL, KERNEL, KERNEL, generator=rng)
        kernels.append(drawn * (2 / (inputs * KERNEL**3)) ** 0.5)
        inputs = width
    return kernels


# -- bands -----------------------------------------------------------------------------------------


def band_distances(reference: Tensor, candidate: Tensor, frames: int) -> dict[str, float]:
    """Return the Frechet distance of each temporal band of clips (N, T C, H, W) by how much is in its bands, and where.

    That is the log mean square of its Haar bands of one level in each quarter of the frame, by which blur and clips
    that stand still show with few clips. "" is the mean over the changes, "tL", "tH2" ... are those of the bands.
    """
    first, second = (_energies(x, frames) for x in (reference, candidate))
    table = {time: frechet_distance(first[time], second[time]) / first[time].shape[1] for time in first}
    changes = [distance for time, distance in table.items() if time != TIME_LOW]
    return {"": sum(changes) / max(len(changes), 1), **table}


def _energies(clips: Tensor, frames: int) -> dict[str, Tensor]:
    """Return the log mean square (N, bands x 4) of every temporal band of clips (N, T C, H, W), grey levels squared."""
    transform, rows = _haar(frames, levels=1), dict[str, list[Tensor]]()
    for chunk in torch.split(clips, CHUNK):
        cells: dict[str, list[Tensor]] = {}
        for band, x in transform.analyse(chunk.float()).items():
            energy = functional.adaptive_avg_pool2d(x.square().mean(dim=1, keepdim=True), 2)
            cells.setdefault(band.time, []).append((energy + QUANTISATION).log().flatten(1))
        for time, parts in cells.items():
            rows.setdefault(time, []).append(torch.cat(parts, dim=1))
    return {time: torch.cat(parts) for time, parts in rows.items()}


def critic_scores(reference: Tensor, candidate: Tensor, frames: int) -> dict[str, float]:
    """Return how well a small network learns to tell clips (N, T C, H, W) apart by how changes go with averages.

    It sees Haar's temporal bands of the clips at half their size, normalised, the changes as asinh(3 x). The values
    are as of :func:`freqgan.metrics.two_sample_test.critic_scores`.
    """
    count = min(len(reference), len(candidate), MOST_CLIPS)
    transform = _haar(frames, levels=1)
    bands = transform.analyse(torch.cat([reference[:count], candidate[:count]]).float() / 127.5 - 1)
    lows = {band: x for band, x in bands.items() if band.orientation == "LL"}
    moments = BandMoments()
    moments.add(lows)
    normal = moments.finish().normalise_all(lows)
    parts = [normal[Band(1, "LL", t)] for t in transform.times]
    planes = torch.cat([parts[0], *(torch.asinh(3 * x) for x in parts[1:])], dim=1)
    return told_apart(planes[:count], planes[count:])


def _haar(frames: int, levels: int) -> ClipTransform:
    halvings = (frames & -frames).bit_length() - 1
    return ClipTransform(parse_transform("dwt:haar", levels), frames, halvings)


# -- changes ---------------------------------------------------------------------------------------


def change_distance(reference: Tensor, candidate: Tensor, frames: int) -> float:
    """Return by how many grey levels the changes of pixels from frame to frame differ in distribution.

    It is the Wasserstein distance between all |x_{t+1} - x_t| of the clips (N, T C, H, W) of both kinds, by their
    quantiles, and that between the clips' mean changes, added up: clips that change by bits are none of which half
    stand still.
    """
    pixels, clips = zip(*(_changes(x, frames) for x in (reference, candidate)), strict=True)
    return sum(float((a - b).abs().mean()) for a, b in (pixels, clips))


def _changes(clips: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return quantiles of the changes of pixels, and of the mean changes of clips, grey levels."""
    counts, means = torch.zeros(256, dtype=torch.int64), []
    for chunk in torch.split(clips, CHUNK):
        steps = apart(chunk, frames).float().diff(dim=1).abs()
        counts += torch.bincount(steps.flatten().to(torch.int64), minlength=256)
        means.append(steps.flatten(1).mean(dim=1))
    shares = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    cumulative = counts.cumsum(0).double() / counts.sum()
    levels = torch.searchsorted(cumulative, shares).double()
    return levels, torch.cat(means).double().quantile(shares)


def blockiness(clips: Tensor, frames: int) -> float:
    """Return log2 of the mean |x_{t+1} - x_t| across pairs of frames over that within pairs, of clips (N, T C, H, W).

    Frames 0 and 1 are a pair, 2 and 3 the next: Haar's transform makes each of its own. It is about 0 for real clips,
    above where motion jerks from pair to pair. Clips of two frames have one pair, and 0.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    for chunk in torch.split(clips, CHUNK):
        steps = apart(chunk, frames).float().diff(dim=1).abs().double()
        sums += torch.stack(
            [steps[:, ::2].sum() / max(frames // 2, 1), steps[:, 1::2].sum() / max((frames - 1) // 2, 1)]
        )
    ratio = (sums[1] + TINY) / (sums[0] + TINY)
    return 0.0 if frames < 3 else float(ratio.log2())


# -- motion ----------------------------------------------------------------------------------------


def motion_distance(reference: Tensor, candidate: Tensor, frames: int) -> float:
    """Return the total variation, 0 to 1, between how far and where blocks of clips (N, T C, H, W) move.

    That is from frame to frame, see :func:`motion_histogram`.
    """
    first, second = (motion_histogram(x[:MOST_CLIPS], frames) for x in (reference, candidate))
    return float((first - second).abs().sum() / 2)


def motion_histogram(clips: Tensor, frames: int) -> Tensor:
    """Return the share (49,) of blocks of clips (N, T C, H, W) that move by each of -3 to 3 pixels down and across.

    Blocks of 8 x 8 pixels of the luminance are looked for in the frame before, by their mean absolute difference; one
    that is found no better than where it was stands still (the middle of the histogram).
    """
    counts = torch.zeros((2 * REACH + 1) ** 2, dtype=torch.float64)
    for chunk in torch.split(clips, CHUNK):
        grey = apart(chunk, frames).float().mean(dim=2)
        before, after = grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1)
        padded = functional.pad(before[:, None], (REACH,) * 4, mode="replicate")[:, 0]
        height, width = after.shape[-2:]
        errors = torch.stack(
            [
                functional.avg_pool2d((after - padded[:, y : y + height, x : x + width]).abs()[:, None], BLOCK)[:, 0]
                for y in range(2 * REACH + 1)
                for x in range(2 * REACH + 1)
            ]
        )
        middle = len(errors) // 2
        errors[middle] -= STILL
        counts += torch.bincount(errors.argmin(dim=0).flatten(), minlength=len(counts))
    return counts / counts.sum()
