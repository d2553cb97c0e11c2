"""VGG19 computes what its definition says, and refuses what is no VGG19."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from freqgan.errors import InputError
from freqgan.networks.vgg import Vgg19, network_input, weight_shapes
from tests.support.vgg import CONVOLUTIONS, POOLS, layer_names, random_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


def numpy_layers(
    images: NDArray[np.float64], weights: dict[str, Tensor], pooling: str
) -> dict[str, NDArray[np.float64]]:
    """Every activation of images (B, 3, H, W) in [0, 1], in float64 and by matrix products alone."""
    x = (images - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    layers = {}
    for index, name in layer_names():
        if index in CONVOLUTIONS:
            kernel, bias = (weights[f"features.{index}.{part}"].double().numpy() for part in ("weight", "bias"))
            windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
            x = np.einsum("bchwij,ocij->bohw", windows, kernel, optimize=True) + bias[:, None, None]
        elif index in POOLS:
            height, width = (side // 2 * 2 for side in x.shape[2:])
            cells = x[..., :height, :width].reshape(*x.shape[:2], height // 2, 2, width // 2, 2)
            x = cells.max(axis=(3, 5)) if pooling == "max" else cells.mean(axis=(3, 5))
        else:
            x = np.maximum(x, 0)
        layers[name] = x
    return layers


@pytest.mark.parametrize(("pooling", "size"), [("max", (32, 45)), ("average", (33, 32))])
def test_every_layer_is_what_numpy_computes(weights: dict[str, Tensor], pooling: str, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((1, 3, *size))
    expected = numpy_layers(images, weights, pooling)
    network = Vgg19(weights, "max" if pooling == "max" else "average")
    with torch.no_grad():
        layers = network.features(torch.from_numpy(images).float(), list(expected))
    assert list(layers) == list(expected)
    assert len(layers) == 37
    for name, values in expected.items():
        scale = float(np.abs(values).max())
        np.testing.assert_allclose(layers[name].numpy() / scale, values / scale, rtol=0, atol=1e-4, err_msg=name)


def test_it_has_the_parameters_of_vgg19() -> None:
    shapes = weight_shapes()
    assert list(shapes) == [f"features.{index}.{part}" for index in CONVOLUTIONS for part in ("weight", "bias")]
    assert sum(map(math.prod, shapes.values())) == 20_024_384


def test_grey_is_repeated_and_only_what_is_asked_for_is_given(weights: dict[str, Tensor]) -> None:
    network, grey = Vgg19(weights), torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    one, three = (network.features(x, ["relu1_1", "conv2_2"]) for x in (grey, grey.repeat(1, 3, 1, 1)))
    assert {name: tuple(x.shape) for name, x in one.items()} == {
        "relu1_1": (2, 64, 32, 32),
        "conv2_2": (2, 128, 16, 16),
    }
    for name in one:
        assert torch.equal(one[name], three[name])
    assert float(one["relu1_1"].min()) == 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_gradients_reach_the_images(weights: dict[str, Tensor]) -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    Vgg19(weights, "average").features(image, ["conv3_1"])["conv3_1"].square().mean().backward()
    assert image.grad is not None
    assert bool((image.grad != 0).all())


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 2, 32, 32), (3, 32, 32)])
def test_other_images_are_refused(weights: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 32 x 32"):
        Vgg19(weights).features(torch.zeros(shape), ["relu1_1"])


def test_other_layers_are_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"no layer 'relu1_3' \(did you mean relu"):
        Vgg19(weights).features(torch.zeros(1, 3, 32, 32), ["relu1_3"])


def test_the_first_wrong_tensor_is_named(weights: dict[str, Tensor]) -> None:
    name = "features.10.weight"
    with pytest.raises(
        InputError,
        match=rf"mine is no VGG19: it lacks {name} \(of shape \(256, 128, 3, 3\)\) and has features.0.weight",
    ):
        Vgg19({key: x for key, x in weights.items() if key not in (name, "features.30.bias")}, source="mine")
    with pytest.raises(InputError, match=r"has shape \(256, 128, 1, 1\) in place of \(256, 128, 3, 3\)"):
        Vgg19(weights | {name: torch.zeros(256, 128, 1, 1)})
    for wrong in (torch.full((64,), math.nan), torch.zeros(64, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"features.0.bias holds what is no finite number"):
            Vgg19(weights | {"features.0.bias": wrong})


def test_stored_pixels_come_to_the_range_of_the_network() -> None:
    eight = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(network_input(eight), torch.tensor([[[[0, 0.2], [0.4, 1]]]]))
    sixteen = torch.tensor([[[[1000, 2000], [3000, 5000]]]], dtype=torch.int32).to(torch.uint16)
    torch.testing.assert_close(network_input(sixteen), torch.tensor([[[[0, 0.25], [0.5, 1]]]]))
    assert bool((network_input(torch.full((1, 1, 2, 2), 7, dtype=torch.int32).to(torch.uint16)) == 0).all())
    with pytest.raises(InputError, match=r"uint8 or uint16, not torch\.float32"):
        network_input(torch.zeros(1, 1, 2, 2))
