from __future__ import annotations

import pytest
import torch

from freqgan.bands import Band, SubImages, all_bands
from freqgan.model.chain import Chain
from freqgan.pixels import from_pixels
from freqgan.recipe.augmentation import augment
from tests.support.models import TinyRun, chain_of, pictures, tiny_settings


def real(chain: Chain) -> dict[Band, torch.Tensor]:
    return chain.real(pictures(chain.settings))


@pytest.mark.parametrize("transform", ["dwt:haar", "dwt:db2", "dwt:bior2.2"])
@pytest.mark.parametrize("size", [16, 19])
def test_real_bands_give_the_image_back(transform: str, size: int) -> None:
    chain = chain_of(tiny_settings(image_size=size, levels=2, transform=transform))
    images = pictures(chain.settings)
    bands = chain.real(images)
    assert set(bands) == set(all_bands(2))
    torch.testing.assert_close(chain.image(bands), images.float() / 127.5 - 1, atol=2e-5, rtol=0)


def test_real_bands_are_normalised() -> None:
    chain = chain_of(tiny_settings(levels=2))
    bands = chain.real(pictures(chain.settings, 64, seed=1))
    for band, x in bands.items():
        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0, msg=str(band))
        torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0, msg=str(band))


def test_low_band_not_given_is_the_synthesis_of_the_coarser_level() -> None:
    chain = chain_of(tiny_settings(levels=2))
    bands = real(chain)
    derived = chain.low(Band(1, "LL"), {band: x for band, x in bands.items() if band != Band(1, "LL")})
    torch.testing.assert_close(derived, bands[Band(1, "LL")], atol=1e-5, rtol=0)
    changed = bands | {Band(1, "LL"): bands[Band(1, "LL")] + 1}
    assert torch.equal(chain.low(Band(1, "LL"), changed), changed[Band(1, "LL")])
    assert torch.equal(chain.low(Band(1, "LL"), changed, derive=True), derived)


def test_strict_nesting_returns_exactly_the_generated_bands() -> None:
    chain = chain_of(tiny_settings(levels=2, plan={"strict_nesting": True}))
    made = {
        band: torch.randn(4, 3, 4 * (3 - band.level), 4 * (3 - band.level))
        for gan in chain.plan.gans
        for band in gan.bands
    }
    again = chain.transform.analyse(chain.image(made))
    for band, x in made.items():
        torch.testing.assert_close(chain.statistics.normalise(band, again[band]), x, atol=1e-5, rtol=0, msg=str(band))


@pytest.mark.parametrize(
    "plan",
    [{}, {"high_gans": {1: 1}}, {"strict_nesting": True}, {"cycles": 2}, {"condition": {"HH1": ["LL2", "HL1"]}}],
)
@pytest.mark.parametrize("size", [16, 32, 36])
def test_condition_has_the_channels_it_announces_and_sees_what_the_plan_says(
    plan: dict[str, object], size: int
) -> None:
    chain = chain_of(tiny_settings(image_size=size, levels=2, plan=plan))
    bands = real(chain)
    for gan in chain.plan.gans:
        condition = chain.condition(gan, bands)
        channels = 0 if condition.planes is None else condition.planes.shape[1]
        assert channels == chain.condition_channels(gan)
        for band in all_bands(2):
            other = chain.condition(gan, bands | {band: bands[band] + 1}).planes
            differs = condition.planes is not None and other is not None and not torch.equal(condition.planes, other)
            assert differs == (band in gan.seen), (gan.name, band)


def test_bands_of_another_resolution_reach_the_grid_without_loss() -> None:
    chain = chain_of(tiny_settings(image_size=32, levels=2))
    bands = real(chain)
    gan = chain.plan.gan("HL1")
    assert chain.patch(gan) == 2  # 16 pixels a side on a grid of 8
    condition = chain.condition(gan, bands)
    assert condition.planes is not None
    unfolded = torch.nn.functional.pixel_shuffle(condition.planes[:, :12], 2)
    torch.testing.assert_close(unfolded, bands[Band(1, "LL")].asinh(), atol=1e-6, rtol=0)
    assert condition.base is not None
    assert torch.equal(condition.base, bands[Band(1, "LL")])


def test_ensemble_members_are_picked_per_sample() -> None:
    chain = chain_of(tiny_settings(plan={"high_gans": {1: 6}}, batch=64))
    choices = chain.choices(0, 5, 64)
    assert set(choices) == {Band(1, "HL"), Band(1, "LH"), Band(1, "HH")}
    choice = choices[Band(1, "HL")]
    assert 10 < int(choice.sum()) < 54
    outputs = {"HL1": torch.zeros(64, 3, 8, 8), "HL1.2": torch.ones(64, 3, 8, 8)}
    picked = chain.bands(outputs, choices)[Band(1, "HL")]
    assert torch.equal(picked[:, 0, 0, 0], choice.float())
    assert torch.equal(chain.choices(0, 5, 64)[Band(1, "HL")], choice)
    assert not torch.equal(chain.choices(0, 6, 64)[Band(1, "HL")], choice)


def test_a_runaway_sample_stays_finite() -> None:
    chain = chain_of(tiny_settings())
    bands = chain.bands({"LL1": torch.full((1, 3, 8, 8), 1e30), "HL1": torch.full((1, 3, 8, 8), -1e30)}, {})
    assert {float(x.abs().max()) for x in bands.values()} == {30.0}
    assert float(chain.image(bands).abs().max()) < 1e3


def test_outputs_of_a_joint_gan_are_taken_apart_in_order() -> None:
    chain = chain_of(tiny_settings(plan={"high_gans": {1: 1}}))
    output = torch.randn(4, 9, 8, 8)
    bands = chain.bands({"HL-LH-HH1": output}, {})
    for i, band in enumerate((Band(1, "HL"), Band(1, "LH"), Band(1, "HH"))):
        assert torch.equal(bands[band], output[:, 3 * i : 3 * i + 3])
    assert torch.equal(chain.stacked(chain.plan.gan("HL-LH-HH1"), bands), output)


def test_a_batch_is_augmented_and_analysed_once_for_all_who_share_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings()
    chain, images = chain_of(settings), pictures(settings)
    real, analysed = Chain.real, list[int]()

    def count(self: Chain, images: torch.Tensor) -> SubImages:
        analysed.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Chain, "real", count)
    first = chain.real_batch(3, images)
    assert analysed == []  # the image stage may need no sub-images
    assert chain.real_batch(3, images, slice(0, 4)).sub_images is first.sub_images
    assert analysed == [4]
    augmented = augment(images, settings.augmentation, settings.levels, settings.seed, 3)
    assert torch.equal(first.images, from_pixels(augmented))
    assert all(torch.equal(x, first.sub_images[band]) for band, x in real(chain, augmented).items())
    own_rows = chain.real_batch(3, images, slice(2, 4)).sub_images
    assert all(torch.equal(x, real(chain, augmented[2:])[band]) for band, x in own_rows.items())
    others = [chain.real_batch(4, images), chain.real_batch(4, images.clone())]
    assert len({id(batch) for batch in others} | {id(first)}) == 3


def test_a_step_of_all_stages_analyses_its_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TinyRun(tiny_settings())
    real, analysed = Chain.real, list[int]()

    def count(self: Chain, images: torch.Tensor) -> SubImages:
        analysed.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Chain, "real", count)
    for step in range(3):
        run.step(step)
    assert analysed == [4, 4, 4]
