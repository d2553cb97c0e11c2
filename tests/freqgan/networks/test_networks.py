from __future__ import annotations

import pytest
import torch
from torch import nn

from freqgan.networks.attention import MaxAttention
from freqgan.networks.blocks import PatchHead, PatchStem, ResidualBlock, grid_patch
from freqgan.networks.discriminators import Discriminator
from freqgan.networks.generators import ConditionalGenerator, GeneratorShape, RootGenerator
from freqgan.networks.settings import NetworkSettings
from freqgan.sizes import Size, halving_sizes
from freqgan.targets import TargetLayout
from freqgan.training.discriminator_trainer import with_spectral_norm

SMALL = NetworkSettings(width=8, coarse_width=12, group_width=4)


def shape(size: Size, patch: int = 1, base: int = 0, condition: int = 0, classes: int = 0) -> GeneratorShape:
    return GeneratorShape(size, patch, 3, base, condition, 16, TargetLayout(classes), "test")


@pytest.mark.parametrize(
    ("side", "sides"), [(4, [4]), (3, [3]), (8, [4, 8]), (9, [3, 5, 9]), (32, [4, 8, 16, 32]), (1, [1])]
)
def test_squares_are_halved_until_they_are_small(side: int, sides: list[int]) -> None:
    assert halving_sizes((side, side)) == [(side, side) for side in sides]


def test_rectangles_are_halved_until_the_shorter_side_is_small() -> None:
    assert halving_sizes((17, 9)) == [(5, 3), (9, 5), (17, 9)]
    assert halving_sizes((3, 40)) == [(3, 40)]


def test_patches_leave_a_whole_grid_of_at_least_eight() -> None:
    assert [grid_patch((side, side), 2) for side in (8, 14, 16, 17, 32)] == [1, 1, 2, 1, 2]
    assert [grid_patch((side, side), 4) for side in (8, 16, 24, 32, 34, 35, 128)] == [1, 2, 3, 4, 2, 1, 4]


@pytest.mark.parametrize(
    ("size", "patch"),
    [((4, 4), 1), ((5, 5), 1), ((8, 8), 1), ((9, 9), 1), ((16, 16), 2), ((36, 36), 2), ((9, 14), 1), ((48, 20), 2)],
)
def test_root_generator_shapes(size: Size, patch: int) -> None:
    network = RootGenerator(shape(size, patch), SMALL, attention=True)
    out = network(torch.randn(2, 16), None, None, torch.zeros(2), None)
    assert out.shape == (2, 3, *size)
    assert 0.3 < float(out.detach().std()) < 3


@pytest.mark.parametrize(("size", "patch"), [((4, 4), 1), ((5, 5), 1), ((16, 16), 2), ((9, 4), 1), ((16, 24), 2)])
def test_refiner_starts_at_the_identity_and_high_bands_near_unit_variance(size: Size, patch: int) -> None:
    noise, base = torch.randn(32, 16), torch.randn(32, 3, *size)
    planes = torch.randn(32, 3 * patch**2, size[0] // patch, size[1] // patch)
    refiner = ConditionalGenerator(shape(size, patch, 3, 3 * patch**2), SMALL, refine=True)
    assert torch.equal(refiner(noise, planes, base, torch.zeros(32), None), base)
    high = ConditionalGenerator(shape(size, patch, 3, 3 * patch**2), SMALL, refine=False)
    out = high(noise, planes, base, torch.zeros(32), None)
    assert out.shape == base.shape
    assert 0.3 < float(out.detach().std()) < 3


def test_a_cell_paints_beyond_its_patch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 4, 4)
    changed = x.clone()
    changed[..., 1, 1] += 1  # paints pixels 4 to 7 of both axes
    for patch, reach in ((1, 1), (2, 1), (4, 1)):
        head = PatchHead(8, 3, patch)
        moved = (head(changed) != head(x)).any(dim=1)[0].nonzero()
        assert moved.amin(0).tolist() == [patch - reach] * 2
        assert moved.amax(0).tolist() == [2 * patch - 1 + reach] * 2
        assert not bool(PatchHead(8, 3, patch, gain=0)(x).any())


@pytest.mark.parametrize(("patch", "channels"), [(1, 3), (2, 32), (4, 128)])
def test_a_stem_keeps_every_pixel_in_its_cell(patch: int, channels: int) -> None:
    torch.manual_seed(0)
    stem = PatchStem(3, patch)
    x = torch.randn(1, 3, 8, 8)
    out = stem(x)
    assert stem.channels == channels
    assert out.shape == (1, channels, 8 // patch, 8 // patch)
    changed = x.clone()
    changed[..., 4, 4] += 1
    assert bool((stem(changed) != out)[..., 4 // patch, 4 // patch].any())


def test_noise_maps_are_normal_at_every_cell_and_functions_of_the_noise() -> None:
    network = ConditionalGenerator(shape((16, 16), 2, 3, 12), SMALL, refine=False)
    norms = torch.linalg.vector_norm(network.noise_maps, dim=0)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    again = ConditionalGenerator(shape((16, 16), 2, 3, 12), SMALL, refine=False)
    assert torch.equal(network.noise_maps, again.noise_maps)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (8, 8), (16, 16), (19, 19), (17, 9), (16, 24)])
@pytest.mark.parametrize("classes", [0, 3])
def test_discriminator_shapes_and_labels(size: Size, classes: int) -> None:
    network = Discriminator(size, 3, 6, TargetLayout(classes), SMALL, emphasis=True)
    if isinstance(network.embed, nn.Embedding):
        assert not bool(network.embed.weight.any())
        nn.init.normal_(network.embed.weight)
    grid = (side // network.patch for side in size)
    band, condition = torch.randn(4, 3, *size), torch.randn(4, 6, *grid)
    labels = torch.tensor([0, 1, 2, 0])
    logits = network(band, condition, torch.zeros(4), labels if classes else None)
    assert logits.shape == (4,)
    if classes:
        assert not torch.equal(logits, network(band, condition, torch.zeros(4), labels.roll(1)))
    assert not torch.equal(logits, network(band, condition.roll(1, 0), torch.zeros(4), labels if classes else None))
    assert not torch.equal(logits, network(band, condition, torch.ones(4), labels if classes else None))


def test_attention_is_not_a_no_op_and_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    layer, x = MaxAttention(8), torch.randn(2, 8, 8, 8)
    change = layer(x) - x
    assert 0.01 < float(change.detach().std()) < 0.5
    uniform = nn.functional.softmax(torch.maximum(layer.first(x), layer.second(x)).flatten(2), dim=2)
    expected = layer.mix(64 * uniform.view_as(x)) + layer.value(x)
    torch.testing.assert_close(layer(x), expected)


def test_attention_is_the_loop_over_positions_that_it_stands_for() -> None:
    """y_p = W(HW M_p) + h(x_p), M_p = exp(s_p) / sum over q of exp(s_q), s_p = max(f(x_p), g(x_p)), channel by channel.

    Without the factor HW the first term is about a HW-th of what it is: x alone would be left.
    """
    layer, x = MaxAttention(4), torch.randn(2, 4, 3, 5)
    nn.init.normal_(layer.mix.weight, std=0.5)
    weights = [part.weight.detach()[:, :, 0, 0] for part in (layer.first, layer.second, layer.value, layer.mix)]
    first, second, value, mix = weights
    y, unscaled = torch.empty_like(x), torch.empty_like(x)
    for image in range(2):
        places = [x[image, :, i, j] for i in range(3) for j in range(5)]
        scores = [torch.maximum(first @ place, second @ place) for place in places]
        total = sum((score.exp() for score in scores), torch.zeros(4))
        for number, (place, score) in enumerate(zip(places, scores, strict=True)):
            row, column = divmod(number, 5)
            y[image, :, row, column] = mix @ (15 * score.exp() / total) + value @ place
            unscaled[image, :, row, column] = mix @ (score.exp() / total) + value @ place
    torch.testing.assert_close(layer(x).detach(), y)
    change, nothing = (y - x).square().mean().sqrt(), (unscaled - x).square().mean().sqrt()
    torch.testing.assert_close(15 * nothing, change)
    assert float(nothing) < 0.1 < float(change)


def test_residual_block_starts_at_the_identity_and_style_modulates_it() -> None:
    block = ResidualBlock(8, SMALL, style=5)
    x, style = torch.randn(2, 8, 6, 6), torch.randn(2, 5)
    assert torch.equal(block(x, style), x)
    nn.init.normal_(block.project.weight)
    assert not torch.equal(block(x, style), block(x, 2 * style))


def test_spectral_norm_survives_layers_that_start_at_zero() -> None:
    network = with_spectral_norm(Discriminator((8, 8), 3, 0, TargetLayout(), SMALL, emphasis=False))
    for _ in range(30):  # each forward in training is one power iteration
        logits = network(torch.randn(4, 3, 8, 8), None, torch.zeros(4), None)
    assert bool(logits.isfinite().all())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[0] > 1:
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
            assert float(largest) == pytest.approx(1, abs=0.15)
