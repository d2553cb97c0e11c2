"""Features learnt on real images see what images show, and the networks are the same whoever teaches them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.metrics.bands import packet_distances
from freqgan.metrics.catalogue import FAMILIES, HIGH_IS_GOOD, accuracy_sentence, accuracy_sentences, is_accuracy
from freqgan.metrics.evaluation import measure
from freqgan.metrics.feature_network import FeatureNetwork, LearnedFeatures, reduced
from freqgan.metrics.feature_recipe import RECIPES, FeatureRecipe
from freqgan.metrics.feature_training import learn_features, task_of
from freqgan.metrics.learned_features import accuracy_scores, learned_measure, learned_scores, weights_digest
from tests.support.glyphs import LETTERS, glyphs, jpeg, textures, torn

Glyphs = tuple[Tensor, Tensor]
TAUGHT, MEASURED = 2_400, 800
SHORT = FeatureRecipe(name="learned", width=8, most_steps=4)
LETTER_RECIPE = FeatureRecipe(name="learned", width=8, most_steps=300, batch=64)


@pytest.fixture(scope="module")
def known() -> Glyphs:
    """Letters that networks learn from; the first 1,600 are compared with others."""
    return glyphs(TAUGHT, seed=1)


@pytest.fixture(scope="module")
def unknown() -> Glyphs:
    """Letters that no network has seen."""
    return glyphs(TAUGHT, seed=2)


@pytest.fixture(scope="module", params=["label", "instance"])
def learned(request: pytest.FixtureRequest, known: Glyphs) -> LearnedFeatures:
    images, labels = known
    torch.manual_seed(0)
    return learn_features(images, labels if request.param == "label" else None, LETTER_RECIPE)


def spoiled(unknown: Glyphs) -> dict[str, Tensor]:
    """Images that no longer show what real ones show, and images that do."""
    images, labels = unknown
    return {
        "torn": torn(images[:MEASURED]),
        "textures": textures(images[:MEASURED]),
        "no K": images[labels != LETTERS.index("K")][:MEASURED],
        "others": images[:MEASURED],
        "others again": images[MEASURED : 2 * MEASURED],
        "jpeg": jpeg(images[:MEASURED], 95),
    }


def test_what_images_show_is_seen_and_nothing_else(learned: LearnedFeatures, known: Glyphs, unknown: Glyphs) -> None:
    """Measured: with labels 9, 68, 5.7 times the floor, without 16, 63, 1.2; what is still real 0.6 to 1.0."""
    images = known[0]
    features = learned.network.features
    real = features(images[:MEASURED])
    floors = learned_scores(real, features(images[MEASURED : 2 * MEASURED]))
    ratios = {
        name: {metric: value / floors[metric] for metric, value in learned_scores(real, features(candidate)).items()}
        for name, candidate in spoiled(unknown).items()
    }
    for metric in ("frechet", "kernel"):
        assert ratios["torn"][metric] > 4
        assert ratios["textures"][metric] > 20
        if learned.task == "label":  # by eight letters drawn alike nothing else tells that one is missing
            assert ratios["no K"][metric] > 2.5
        for name in ("others", "others again", "jpeg"):
            assert ratios[name][metric] < 1.8, name
    assert ratios["textures"]["precision"] < 0.7
    assert ratios["textures"]["coverage"] < 0.6
    assert ratios["others"]["coverage"] == pytest.approx(1, abs=0.1)


def test_tearing_hardly_moves_the_statistics_of_bands(learned: LearnedFeatures, known: Glyphs, unknown: Glyphs) -> None:
    real, other = known[0][:MEASURED], known[0][MEASURED : 2 * MEASURED]
    moved = torn(unknown[0][:MEASURED])
    run = learned_measure(learned).run
    by_features = run(real, moved)[".frechet"] / run(real, other)[".frechet"]
    by_bands = packet_distances(real, moved)[""] / packet_distances(real, other)[""]
    assert by_features > 3 * by_bands


def test_accuracy_is_that_of_images_that_were_held_out(learned: LearnedFeatures, unknown: Glyphs) -> None:
    images, labels = unknown
    ((name, score),) = accuracy_scores(learned).items()
    assert name == f"learned.{learned.task}_accuracy"
    assert is_accuracy(name)
    assert name in HIGH_IS_GOOD
    assert (score.value, score.floor) == (learned.accuracy, learned.chance)
    if learned.task == "label":
        answers = learned.network(2 * reduced(images).float() / 255 - 1).argmax(dim=1)
        assert float((answers == labels).double().mean()) == pytest.approx(learned.accuracy, abs=0.05)
        assert learned.accuracy > 0.8
        assert learned.chance == pytest.approx(1 / len(LETTERS), abs=0.03)
    else:
        assert learned.chance == 1 / learned.answers == 1 / 64
        assert learned.accuracy > 10 * learned.chance


def test_features_have_one_scale_and_know_no_neighbours(learned: LearnedFeatures, known: Glyphs) -> None:
    images = known[0]
    features = learned.network.features(images)
    assert features.shape == (TAUGHT, 4 * LETTER_RECIPE.width)
    assert float(features.mean(dim=0).abs().max()) < 0.1
    assert float(features.std(dim=0).max()) < 1.2
    torch.testing.assert_close(learned.network.features(images[5:6]), features[5:6], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("with_labels", [True, False])
def test_the_same_images_give_the_same_bytes_whatever_the_threads(with_labels: bool) -> None:
    images, labels = glyphs(160, seed=3)

    def digest(recipe: FeatureRecipe, threads: int) -> str:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.rand(threads)  # what else is drawn makes no difference
        try:
            taught = learn_features(images, labels if with_labels else None, recipe)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        return weights_digest(taught)

    assert digest(SHORT, 1) == digest(SHORT, 2)
    other = SHORT.model_copy(update={"name": "learned_holdout"})
    assert digest(other, 1) != digest(SHORT, 1)


def test_the_two_networks_differ_in_seed_and_width() -> None:
    assert [recipe.name for recipe in RECIPES] == list(FAMILIES)[-2:]
    assert len({recipe.width for recipe in RECIPES}) == 2


@pytest.mark.parametrize(
    ("shape", "seen"), [((1, 17, 19), 16), ((3, 64, 64), 32), ((4, 32, 48), 32), ((2, 5, 5), 8), ((1, 16, 16), 16)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_images_of_any_size_channels_and_bit_depth(shape: tuple[int, int, int], seen: int, dtype: torch.dtype) -> None:
    most = torch.iinfo(dtype).max
    images = torch.from_numpy(np.random.default_rng(0).integers(0, most + 1, (40, *shape))).to(dtype)
    assert reduced(images).shape == (40, shape[0], seen, seen)
    assert reduced(images).dtype == torch.uint8
    network = learn_features(images, None, SHORT).network
    features = network.features(images)
    assert features.shape == (40, 4 * SHORT.width)
    assert torch.isfinite(features).all()


def test_sixteen_bits_are_seen_as_the_eight_bits_they_are_nearest_to() -> None:
    images, _ = glyphs(40, seed=4)
    network = FeatureNetwork(1, 4, 2).eval()
    wide = (images.to(torch.int32) * 257).to(torch.uint16)
    assert torch.equal(network.features(images), network.features(wide))


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (torch.arange(64) % 2, "label"),
        (torch.arange(64) % 8, "label"),
        (torch.arange(64) % 9, "instance"),
        (torch.zeros(64, dtype=torch.int64), "instance"),
        ((torch.arange(64) % 3) - 1, "instance"),
    ],
    ids=["two", "eight of each", "seven of each", "one", "some without"],
)
def test_labels_are_learnt_where_they_are_fit_to_teach(labels: Tensor, task: str) -> None:
    assert task_of(labels) == task


def test_labels_that_say_nothing_make_a_network_that_is_called_weak() -> None:
    images = torch.randint(0, 256, (200, 1, 16, 16), dtype=torch.uint8)
    weak = learn_features(images, torch.randint(0, 2, (200,)), SHORT)
    ((name, score),) = accuracy_scores(weak).items()
    assert score.value < 0.75
    said = accuracy_sentence(name, score.value, score.floor)
    assert "it is weak" in said
    assert f"{score.value:.1%} of real images held out" in said
    assert "weak" not in accuracy_sentence(name, 0.9, 0.5)
    scores = {name: {"value": score.value, "floor": score.floor}, "learned.frechet": {"value": 1.0, "floor": 1.0}}
    assert accuracy_sentences(scores) == [said]


def test_images_that_hardly_differ_have_finite_distances() -> None:
    images = torch.full((80, 3, 16, 16), 90, dtype=torch.uint8)
    images[3, 0, 0, 0] += 1
    taught = learn_features(images, None, SHORT)
    other = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    for candidate in (images[:64], other):
        assert all(np.isfinite(list(learned_measure(taught).run(images, candidate).values())))


def test_too_few_images_are_named() -> None:
    with pytest.raises(InputError, match="19 images are too few to learn from: at least 20"):
        learn_features(torch.zeros(19, 1, 16, 16, dtype=torch.uint8), None, SHORT)


def test_distances_of_known_clouds() -> None:
    points = torch.randn(1_000, 6, dtype=torch.float64)
    same = learned_scores(points, points + 0.001 * torch.randn(1_000, 6))
    assert same["frechet"] < 1e-4
    assert same["coverage"] == same["copies"] == 1
    far = learned_scores(points, points + 2)
    assert far["frechet"] == pytest.approx(4, rel=1e-6)  # per feature
    assert far["precision"] < 0.3
    assert far["kernel"] > 100 * same["kernel"]


@pytest.mark.usefixtures("brief_critic")
def test_learned_families_stand_beside_the_others() -> None:
    images = torch.randint(0, 256, (192, 1, 16, 16), dtype=torch.uint8)
    taught = [
        learn_features(images, None, recipe) for recipe in (SHORT, SHORT.model_copy(update={"name": "learned_holdout"}))
    ]
    values = measure(images[:64], images[64:128], extra=[learned_measure(one) for one in taught])
    of_images = {family for family in FAMILIES if not family.startswith("clip_")}
    assert {name.partition(".")[0] for name in values} == of_images
    assert values["learned.frechet"] != values["learned_holdout.frechet"]


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.flip(0)], ids=["same", "other order"])
def test_weights_decide_the_digest(change: Callable[[Tensor], Tensor]) -> None:
    images, _ = glyphs(40, seed=5)
    first, second = (learn_features(x, None, SHORT) for x in (images, change(images)))
    same = torch.equal(images, change(images))
    assert (weights_digest(first) == weights_digest(second)) == same
