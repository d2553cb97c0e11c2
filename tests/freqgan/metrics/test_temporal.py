"""Distances of clips: each of the ways in which motion can be wrong moves those that are there to see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from freqgan.metrics import two_sample_test
from freqgan.metrics.evaluation import measure
from freqgan.metrics.temporal import blockiness, motion_histogram, time_distances
from freqgan.model.clips import one_frame_each
from tests.support.moving import WRONG, moving_squares

FRAMES = 8
SEES = {
    "frozen": ("clip_frechet", "clip_bands", "clip_critic", "clip_change", "clip_motion"),
    "shuffled": ("clip_frechet", "clip_bands", "clip_critic", "clip_change", "clip_motion"),
    "changes of another": ("clip_frechet", "clip_bands", "clip_critic", "clip_change", "clip_motion"),
    "blurred": ("clip_frechet", "clip_bands", "clip_critic", "clip_change", "clip_motion"),
}


@pytest.fixture(autouse=True, scope="module")
def short_training() -> Iterator[None]:
    """The critic learns from a quarter of the batches, which is enough for what is wrong here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample_test, "STEPS", 80)
        yield


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor]:
    clips = moving_squares(600)
    return clips[:300], clips[300:]


@pytest.fixture(scope="module")
def floors(real: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {name: distance(*real)[""] for name, distance in time_distances(FRAMES).items()}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_clips_is_seen(wrong: str, real: tuple[Tensor, Tensor], floors: dict[str, float]) -> None:
    reference, other = real
    candidate = WRONG[wrong](other, FRAMES)
    values = {name: distance(reference, candidate)[""] for name, distance in time_distances(FRAMES).items()}
    for name in SEES[wrong]:
        if name == "clip_critic":
            assert values[name] > floors[name] + 0.1, (name, values, floors)
        else:
            assert values[name] > 1.5 * floors[name], (name, values, floors)


def test_jerks_from_pair_to_pair_are_seen(real: tuple[Tensor, Tensor]) -> None:
    reference, other = real
    pairs = other.view(len(other), FRAMES, 3, 32, 32)[:, ::2].repeat_interleave(2, dim=1).flatten(1, 2)
    assert abs(blockiness(reference, FRAMES)) < 0.1
    assert blockiness(pairs, FRAMES) > 3
    assert time_distances(FRAMES)["clip_blockiness"](reference, pairs)[""] > 3


def test_the_motion_of_blocks_is_that_of_what_moves() -> None:
    rng = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (64, 1, 48, 48), generator=rng, dtype=torch.uint8)
    moving = torch.cat([picture.roll((-2 * t, t), (2, 3))[..., 8:40, 8:40] for t in range(4)], dim=1)
    histogram = motion_histogram(moving, 4).view(7, 7)
    down, across = divmod(int(histogram.argmax()), 7)
    assert (down - 3, across - 3) == (2, -1)  # where a block was in the frame before, seen from where it is
    assert histogram.max() > 0.6
    still = motion_histogram(picture.repeat(1, 4, 1, 1), 4)
    assert still[len(still) // 2] == 1


def test_metrics_of_images_are_measured_on_a_frame_of_each_clip(real: tuple[Tensor, Tensor]) -> None:
    reference, other = (clips[:64] for clips in real)
    values = measure(reference, other, frames=FRAMES)
    stills = measure(one_frame_each(reference, FRAMES), one_frame_each(other, FRAMES))
    assert stills.items() <= values.items()
    assert {name.partition(".")[0] for name in values.keys() - stills.keys()} == set(time_distances(FRAMES))
    assert torch.equal(one_frame_each(reference, FRAMES)[3], reference[3, 9:12])
