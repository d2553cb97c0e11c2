"""Each metric sees the corruptions it is there for, and misses those it is known to miss (evaluation table)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn import functional

from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.evaluation.background import Evaluation
from cluster.evaluation.evaluate import check_real
from cluster.run.settings import RunSettings
from freqgan.bands import HIGH_ORIENTATIONS, Band
from freqgan.errors import InputError
from freqgan.metrics.bands import cross_band_distance, packet_distances
from freqgan.metrics.evaluation import FRECHET_FAINTEST, KERNEL_FAINTEST, MEASURES, Score, evaluate, measure
from freqgan.metrics.features import random_features, whitened
from freqgan.metrics.frechet import frechet_distance, kernel_distance
from freqgan.metrics.inception import extractor_of, inception_scores
from freqgan.metrics.neighbours import neighbour_scores
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.metrics.spectrum import radial_spectrum, spectrum_distance
from freqgan.metrics.two_sample_test import critic_accuracy
from freqgan.transforms import parse_transform
from tests.support.commands import refused, run_command

Capsys = pytest.CaptureFixture[str]


def shuffled_detail(images: Tensor) -> Tensor:
    """Level-1 detail of the next image: every band keeps its own distribution exactly."""
    transform = parse_transform("dwt:haar", 1)
    bands = transform.analyse(images.float())
    bands |= {Band(1, o): bands[Band(1, o)].roll(1, 0) for o in HIGH_ORIENTATIONS}
    return transform.synthesise(bands, (images.shape[2], images.shape[3])).round().clamp(0, 255).to(torch.uint8)


def blurred(images: Tensor) -> Tensor:
    padded = functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, stride=1).round().to(torch.uint8)


# -- distances of features ---------------------------------------------------------------------------


def test_frechet_distance_is_the_textbook_formula() -> None:
    x = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    y = torch.randn(400, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 0.5
    s1, s2 = np.cov(x.numpy().T), np.cov(y.numpy().T)
    shift = float((x.mean(0) - y.mean(0)).square().sum())
    expected = shift + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    moved = x + torch.tensor([3.0, 0, 0, 0, 0, 4.0])
    assert frechet_distance(x, moved) == pytest.approx(25, rel=1e-9)


def test_frechet_distance_of_fewer_samples_than_dimensions_is_finite() -> None:
    few = torch.randn(10, 40)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(few, 2 * few) > 1


def test_kernel_distance_is_the_sum_over_all_pairs() -> None:
    x, y = torch.randn(1_200, 3, dtype=torch.float64), torch.randn(1_100, 3, dtype=torch.float64) + 0.3

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ b.T / 3 + 1) ** 3).mean()

    expected = float(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(x, x) == 0


def test_neighbours_of_known_points() -> None:
    points = torch.randn(400, 2)
    moved = points + 0.001 * torch.randn(400, 2)
    same = neighbour_scores(points, moved)
    assert same["coverage"] == same["recall"] == same["copies"] == 1
    assert same["density"] == pytest.approx(1.1, abs=0.03)  # of 5: itself, 4 inside, the fifth on the edge
    assert same["duplicates"] < 0.05
    other = neighbour_scores(points, torch.randn(400, 2))
    assert other["density"] == pytest.approx(1, abs=0.15)
    assert other["copies"] < 0.05
    assert neighbour_scores(points, moved[:1].repeat(400, 1))["duplicates"] == 1
    far = neighbour_scores(points, points + 1_000)
    assert far["density"] == far["coverage"] == far["recall"] == far["copies"] == 0
    half = neighbour_scores(points, points[points[:, 0] > 0])
    assert 0.4 < half["coverage"] < 0.7
    assert 0.4 < half["recall"] < 0.7


# -- images -----------------------------------------------------------------------------------------


def test_a_gain_is_seen_in_decibels() -> None:
    images = torch.randint(0, 120, (50, 3, 16, 16), dtype=torch.uint8)
    assert radial_spectrum(images).shape == (8,)
    torch.testing.assert_close(
        radial_spectrum(2 * images) - radial_spectrum(images),
        torch.full((8,), 20 * np.log10(2), dtype=torch.float64),
        atol=1e-4,
        rtol=0,
    )
    assert spectrum_distance(images, images) == 0


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    noise = torch.randint(0, 256, (400, 1, 32, 32), dtype=torch.uint8)
    expected = 10 * np.log10((256**2 - 1) / 12)
    torch.testing.assert_close(radial_spectrum(noise), torch.full((16,), expected).double(), atol=0.2, rtol=0)


@pytest.mark.parametrize(("side", "depth"), [(16, 1), (32, 2), (64, 3), (24, 2), (9, 1)])
def test_packets_are_named_after_bands(side: int, depth: int) -> None:
    images = torch.randint(0, 256, (80, 1, side, side), dtype=torch.uint8)
    table = packet_distances(images, images)
    bands = {f"{o}{level}" for o in HIGH_ORIENTATIONS for level in range(1, depth + 1)}
    assert set(table) == bands | {"", f"LL{depth}"}
    assert max(table.values()) < 1e-6
    other = torch.randint(0, 256, (80, 1, side, side + 1), dtype=torch.uint8)
    whole = side // 2 * 2  # the last row or column of odd sides is left out
    assert packet_distances(images, other[..., :side]) == packet_distances(
        *(x[..., :whole, :whole] for x in (images, other))
    )


def test_the_table_names_the_wrong_band() -> None:
    first, second = (torch.randint(0, 256, (300, 1, 32, 32), dtype=torch.uint8) for _ in range(2))
    transform = parse_transform("dwt:haar", 2)
    bands = transform.analyse(second.float())
    bands[Band(2, "HL")] *= 3
    del bands[Band(1, "LL")]
    wrong = transform.synthesise(bands, (32, 32))
    floor, table = packet_distances(first, second), packet_distances(first, wrong)
    ratios = {band: table[band] / floor[band] for band in table if band}
    assert max(ratios, key=lambda band: ratios[band]) == "HL2"
    assert all(ratio == pytest.approx(1, abs=1e-3) for band, ratio in ratios.items() if band != "HL2")


def test_grey_images_and_odd_sides_have_features_and_patches() -> None:
    images = torch.randint(0, 256, (70, 1, 17, 19), dtype=torch.uint8)
    assert random_features(images).shape == (70, 224)
    assert set(sliced_wasserstein(images, images)) == {"", "17"} or set(sliced_wasserstein(images, images)) == {
        "",
        "19",
    }


@pytest.mark.usefixtures("brief_critic")
def test_equal_sets_are_at_the_floor_and_scores_have_ratios() -> None:
    images = torch.randint(0, 256, (192, 3, 16, 16), dtype=torch.uint8)
    told: list[str] = []
    scores = evaluate(images[:64], images[64:128], images[128:], note=told.append)
    assert told == [measure.name for measure in MEASURES]
    assert {name.partition(".")[0] for name in scores} == set(told)
    assert all(np.isfinite([score.value, score.floor]).all() for score in scores.values())
    assert Score(3.0, 2.0).ratio == 1.5
    assert Score(3.0, 0.0).ratio is None


def test_features_are_computed_once_for_images_that_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (192, 3, 16, 16), dtype=torch.uint8)
    first, second = images[:64].clone(), images[64:128].clone()
    counts: list[int] = []

    def counted(images: Tensor) -> Tensor:
        counts.append(len(images))
        return random_features(images)

    monkeypatch.setattr("freqgan.metrics.evaluation.random_features", counted)
    families = [family for family in MEASURES if family.name.startswith(("feature_", "neighbours"))]
    before = [family.run(first, second) for family in families]
    assert (len(families), counts) == (3, [64, 64])
    second.copy_(images[128:])
    after = [family.run(first, second) for family in families]
    assert counts == [64, 64, 64]
    assert after != before
    assert after == [family.run(first, images[128:].clone()) for family in families]


def kinds_of_images() -> dict[str, Tensor]:
    noise = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    one_channel = noise.clone()
    one_channel[:, 1] = 128
    almost = torch.full_like(noise, 77)
    almost[3, 0, 0, 0] += 1
    return {
        "noise": noise,
        "one grey": torch.full_like(noise, 77),
        "black": torch.zeros_like(noise),
        "one picture": noise[:1].expand_as(noise).contiguous(),
        "two pictures": noise[:2].repeat(32, 1, 1, 1),
        "one colour each": noise[..., :1, :1].expand_as(noise).contiguous(),
        "one channel constant": one_channel,
        "one pixel differs": almost,
    }


@pytest.mark.usefixtures("brief_critic")
@pytest.mark.parametrize("grey", [False, True])
def test_a_generator_that_has_collapsed_is_measured_and_far_away(grey: bool) -> None:
    kinds = {name: images[:, :1].contiguous() if grey else images for name, images in kinds_of_images().items()}
    for name in ("one grey", "black", "one picture"):
        scores = evaluate(kinds["noise"], kinds["noise"].flip(3), kinds[name])
        assert all(np.isfinite(score.value) for score in scores.values()), name
        assert scores["neighbours.coverage"].value < 0.1
        assert scores["neighbours.duplicates"].value == 1
        for metric in ("feature_frechet", "packet_frechet", "cross_band_frechet"):
            assert scores[metric].value > 1.3 * scores[metric].floor, (name, metric)
        values = {x: {"value": s.value, "floor": s.floor, "ratio": s.ratio} for x, s in scores.items()}
        assert "of the kinds of real images are made" in Evaluation(1, 64, values).collapse


@pytest.mark.usefixtures("brief_critic")
@pytest.mark.parametrize("real", ["two pictures", "one colour each", "one channel constant", "one pixel differs"])
def test_real_images_of_few_kinds_give_numbers(real: str) -> None:
    kinds = kinds_of_images()
    for name in ("noise", "one grey", real):
        assert all(np.isfinite(list(measure(kinds[real], kinds[name]).values()))), name


@pytest.mark.parametrize("real", ["one grey", "black", "one picture"])
def test_real_images_that_are_one_picture_are_refused(real: str) -> None:
    kinds = kinds_of_images()
    with pytest.raises(InputError, match="the 64 real images are all the same picture"):
        measure(kinds[real], kinds["noise"])


@pytest.mark.parametrize(
    ("count", "side", "message"), [(63, 16, "63 images are too few"), (64, 8, "images of different shapes")]
)
def test_what_cannot_be_compared(count: int, side: int, message: str) -> None:
    real = torch.zeros(100, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(InputError, match=message):
        evaluate(real, real, torch.zeros(count, 3, side, side, dtype=torch.uint8))


# -- real images ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar(shared_cifar10: Path) -> tuple[Tensor, Tensor]:
    """8,000 images of CIFAR-10 in a mixed order, and their labels."""
    index = build_index(f"{shared_cifar10}/train-*.tar")
    with BatchReader(index, ImagePolicy(size=32), 0, DataSettings(shuffle_shards=20)) as ingest:
        batches = [ingest.batch(first, 500) for first in range(0, 8_000, 500)]
    images = torch.from_numpy(np.concatenate([batch.images for batch in batches]))
    return images, torch.from_numpy(np.concatenate([batch.targets for batch in batches]))


@dataclass
class Sample:
    """Images whose features are computed once."""

    images: Tensor

    @cached_property
    def features(self) -> Tensor:
        return random_features(self.images)


METRICS: dict[str, Callable[[Sample, Sample], float]] = {
    "packets": lambda a, b: packet_distances(a.images, b.images)[""],
    "cross_band": lambda a, b: cross_band_distance(a.images, b.images),
    "critic": lambda a, b: critic_accuracy(a.images, b.images),
    "patches": lambda a, b: sliced_wasserstein(a.images[:500], b.images[:500])[""],  # of more it takes as long again
    "spectrum": lambda a, b: spectrum_distance(a.images, b.images),
    "features": lambda a, b: frechet_distance(*whitened(a.features, b.features, FRECHET_FAINTEST)),
    "kernel": lambda a, b: kernel_distance(*whitened(a.features, b.features, KERNEL_FAINTEST)),
    "duplicates": lambda a, b: neighbour_scores(a.features, b.features)["duplicates"],
}


@pytest.fixture(scope="module")
def real(cifar: tuple[Tensor, Tensor]) -> Sample:
    return Sample(cifar[0][:1_000])


@pytest.fixture(scope="module")
def floor(cifar: tuple[Tensor, Tensor], real: Sample) -> Callable[[str], float]:
    """Gives the metric of that name of real images against real images."""
    other = Sample(cifar[0][1_000:2_000])
    return cache(lambda name: METRICS[name](real, other))


@pytest.mark.parametrize(
    ("corruption", "seen", "missed"),
    [
        ("shuffled", {"cross_band": 5, "critic": 1.6, "patches": 3, "spectrum": 5, "features": 2}, {"packets": 1.3}),
        pytest.param(
            "blurred", {"packets": 3, "cross_band": 5, "patches": 3, "spectrum": 5, "features": 3, "critic": 1.6}, {},
            marks=pytest.mark.long,
        ),
        ("five classes", {"cross_band": 1.15}, {}),
        ("duplicates", {"duplicates": 20}, {"spectrum": 4, "critic": 1.25}),
    ],
)  # fmt: skip
def test_corruptions_of_real_images(
    cifar: tuple[Tensor, Tensor],
    real: Sample,
    floor: Callable[[str], float],
    corruption: str,
    seen: dict[str, float],
    missed: dict[str, float],
) -> None:
    images, labels = cifar
    rest = images[2_000:]
    corrupt = {
        "shuffled": lambda: shuffled_detail(rest[:1_000]),
        "blurred": lambda: blurred(rest[:1_000]),
        "five classes": lambda: rest[labels[2_000:] < 5][:1_000],
        "duplicates": lambda: rest[:100].repeat(10, 1, 1, 1),
    }[corruption]()
    made = Sample(corrupt)
    for names, holds in ((seen, True), (missed, False)):
        for name, factor in names.items():
            ratio = METRICS[name](real, made) / floor(name)
            assert (ratio > factor) == holds, f"{name}: {ratio:.2f}"


def test_features_see_that_half_of_the_classes_are_missing(cifar: tuple[Tensor, Tensor]) -> None:
    """With 2,000 images: of fewer, distances of features are mostly luck."""
    images, labels = cifar
    real, other, five = map(Sample, (images[:2_000], images[2_000:4_000], images[4_000:][labels[4_000:] < 5]))
    assert len(five.images) > 1_800
    for metric, factor in (("features", 1.5), ("kernel", 2.0)):
        ratio = METRICS[metric](real, five) / METRICS[metric](real, other)
        assert ratio > factor, f"{metric}: {ratio:.2f}"


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 70 PNG files of 16x16."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for number in range(70):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    Image.new("RGB", (160, 112)).save(folder / "grid.png")  # as `freqgan generate` leaves one
    return folder


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 200 images."""
    from cluster.data.packing import pack

    source, target = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("many-shards") / "shards"
    rng = np.random.default_rng(2)
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(source / f"{number}.png")
    pack(str(source), str(target))
    return target


@pytest.mark.usefixtures("brief_critic")
def test_evaluate_a_folder(capsys: Capsys, pictures: Path, many_shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    outcome = run_command(capsys, "evaluate", pictures, "--data", many_shards, "--json", file)
    assert outcome.code == 0, outcome.err
    scores = json.loads(file.read_text())
    assert "reading 70 of 70 files" in outcome.err
    assert "left out grid.png: an overview of others" in outcome.err
    for family in MEASURES:
        assert family.sees in outcome.out
    assert all(set(score) == {"value", "floor", "ratio"} for score in scores.values())
    assert scores["packet_frechet"]["ratio"] == pytest.approx(1, abs=0.2)
    assert scores["neighbours.copies"]["value"] < 0.2


@pytest.mark.usefixtures("brief_critic")
def test_evaluate_a_run(capsys: Capsys, small_shards: Path, many_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}").code == 0
    outcome = run_command(capsys, "evaluate", run, "--data", many_shards, "--json", tmp_path / "scores.json")
    assert outcome.code == 0, outcome.err
    assert "comparing 100" in outcome.err
    assert "generating 100 images" in outcome.err
    assert json.loads((tmp_path / "scores.json").read_text())["cross_band_frechet"]["ratio"] > 2
    assert "leave --size out" in refused(run_command(capsys, "evaluate", run, "--data", many_shards, "--size", 32))


def test_real_images_that_are_one_picture_are_named(
    capsys: Capsys, pictures: Path, one_picture: Path, tmp_path: Path
) -> None:
    message = refused(run_command(capsys, "evaluate", pictures, "--data", one_picture))
    assert f"{one_picture}: 65 of its images" in message
    assert "all the same picture" in message
    settings = RunSettings(run=str(tmp_path), image_size=16, levels=1)
    with pytest.raises(InputError, match="65 of its images"):
        check_real(str(one_picture), settings, 1_000)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "is a folder: name a file in it"), ("x" * 241, "241 bytes, and 240 are the most")]
)
def test_where_scores_cannot_go_is_told_before_they_are_measured(
    capsys: Capsys, pictures: Path, many_shards: Path, tmp_path: Path, name: str, reason: str
) -> None:
    for command in (("evaluate", pictures, "--data", many_shards, "--json"), ("shards", "info", many_shards, "--grid")):
        outcome = run_command(capsys, *command, f"{tmp_path}/{name}")
        assert reason in refused(outcome)
        assert "measuring" not in outcome.err


def test_a_network_without_finite_features_is_named() -> None:
    class NoNumbers(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).float() * float("nan")

    extract = extractor_of(torch.jit.script(NoNumbers()), "broken.pt")
    with pytest.raises(InputError, match=r"broken\.pt gave features that are no finite numbers"):
        extract(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


def test_what_cannot_be_evaluated(capsys: Capsys, pictures: Path, small_shards: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ((tmp_path / "nowhere", "--data", small_shards), "is not there: give the run folder of a training, or a"),
        ((empty, "--data", small_shards), "empty folder"),
        ((pictures, "--data", tmp_path / "nowhere"), "nowhere"),
        ((pictures, "--data", small_shards), "at least 64 are needed"),
        ((pictures, "--data", small_shards, "--size", 17), "--size: 17 is odd, and wavelet bands need an even number"),
    ):
        assert message in refused(run_command(capsys, "evaluate", *arguments))


# -- features of a network that the user gives ------------------------------------------------------


class _Means(torch.nn.Module):
    """A stand-in for Inception: per channel mean and deviation on a 2x2 grid."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        x = images.float() / 255
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return torch.cat([pooled, x.flatten(2).std(dim=2)], dim=1) if return_features else pooled[:, 0]


def test_inception_scores_of_known_clouds() -> None:
    points, others = torch.randn(1_500, 6), torch.randn(1_500, 6)
    same = inception_scores(points, others)
    assert abs(same["kid"]) < 5
    assert same["fid"] < 0.05
    assert same["precision"] > 0.8
    assert same["recall"] > 0.8
    far = inception_scores(points, others + 10)
    assert far["fid"] == pytest.approx(600, rel=0.05)
    assert far["kid"] > 1_000
    assert far["precision"] == far["recall"] == 0


@pytest.mark.usefixtures("brief_critic")
def test_evaluate_with_a_torchscript_network(capsys: Capsys, pictures: Path, many_shards: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.pt"
    torch.jit.script(_Means()).save(str(network))
    arguments = ("evaluate", pictures, "--data", many_shards, "--json", tmp_path / "scores.json")
    outcome = run_command(capsys, *arguments, "--inception", network)
    assert outcome.code == 0, outcome.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {name for name in scores if name.startswith("inception")} == {
        "inception.fid", "inception.kid", "inception.precision", "inception.recall",
    }  # fmt: skip
    assert scores["inception.fid"]["ratio"] == pytest.approx(1, abs=0.6)
    assert "inception.fid" in outcome.out
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no network")
    assert "is no TorchScript network" in refused(run_command(capsys, *arguments, "--inception", broken))
    pickled = tmp_path / "pickled.pt"
    torch.save({"weights": torch.zeros(3)}, pickled)
    assert "is no TorchScript network" in refused(run_command(capsys, *arguments, "--inception", pickled))
