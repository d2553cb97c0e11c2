from __future__ import annotations

import pytest
import torch

from freqgan.errors import InputError
from freqgan.export.image_graph import ImageGraph, orthogonalised
from freqgan.export.onnx_file import targets_as_stored
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_pixels
from tests.support.companions import companion_settings
from tests.support.flows import flow_settings
from tests.support.models import tiny_settings
from tests.support.synthesisers import ALL_TARGETS, untrained_model

MODELS: dict[str, ModelSettings] = {
    "haar frames": tiny_settings(levels=2),
    "hurwitz": tiny_settings(noise={"generation": "hurwitz", "dimensions": 16}),
    "independent": tiny_settings(noise={"generation": "independent", "dimensions": 16}),
    "split": tiny_settings(noise={"generation": "split", "dimensions": 16}),
    "an ensemble, labels": tiny_settings(plan={"low_gans": {1: 2}}, classes=3),
    "all targets": tiny_settings(classes=3, conditioning=ALL_TARGETS),
    "16 bits": tiny_settings(bit_depth=16, channels=1),
    "flow experts": flow_settings(classes=3, generation={"evaluations": 2, "label_guidance": 1.0}),
    "fusion": tiny_settings(system="fusion", loss={"kind": "hinge"}),
    "a companion alone": companion_settings("flow_matching", plan={"bands": "none"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_of_a_seed_make_its_images(name: str) -> None:
    model = untrained_model(MODELS[name])
    graph, draws = ImageGraph(model), model.block_draws(5, 1).rows(slice(6))
    arguments = graph.arguments(draws, targets_as_stored(model, draws.targets))
    assert [x.shape[1:] for x in arguments] == [((each.length,) if each.length else ()) for each in graph.inputs]
    with torch.no_grad():
        pixels = graph(*arguments)
    expected = to_pixels(model.draw(draws).images, model.settings.bit_depth).permute(0, 2, 3, 1)
    assert pixels.dtype == expected.dtype
    difference = (pixels.to(torch.int32) - expected.to(torch.int32)).abs()
    assert difference.max() <= (1 if model.settings.bit_depth == 8 else 257)
    assert (pixels.float().std(0) > 0).any()  # they are not all the same


def test_clips_have_their_frames_first_and_floats_the_values_of_their_range() -> None:
    model = untrained_model(
        flow_settings(
            frames=4, time_levels=1, channels=2, bit_depth=32, value_range=(10.0, 30.0), noise={"dimensions": 64}
        )
    )
    draws = model.block_draws(5, 0).rows(slice(3))
    graph = ImageGraph(model)
    with torch.no_grad():
        pixels = graph(*graph.arguments(draws))
    images = model.draw(draws).images.clamp(-1, 1)
    assert pixels.shape == (3, 4, 16, 16, 2)
    assert pixels.dtype == torch.float32
    for frame in range(4):
        for channel in range(2):
            values = images[:, 2 * frame + channel] * 10 + 20
            torch.testing.assert_close(pixels[:, frame, :, :, channel], values, atol=0.01, rtol=0)


def test_any_numbers_become_orthogonal_noises_of_the_lengths_they_have() -> None:
    rows = torch.randn(50, 7, 8, generator=torch.Generator().manual_seed(0))
    out = orthogonalised(rows)
    torch.testing.assert_close(out.square().sum(2), rows.square().sum(2))
    products = out @ out.mT
    assert (products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4
    torch.testing.assert_close(out[:, 0], rows[:, 0])
    torch.testing.assert_close(orthogonalised(out), out, atol=1e-4, rtol=0)


def test_noise_on_conditions_is_refused() -> None:
    model = untrained_model(flow_settings(generation={"condition_noise": 0.1}))
    with pytest.raises(InputError, match=r"condition_noise is 0\.1, .*--condition-noise 0"):
        ImageGraph(model)


def test_a_companion_of_a_pass_for_each_pixel_is_refused() -> None:
    model = untrained_model(companion_settings("autoregressive", plan={"bands": "none"}))
    with pytest.raises(InputError, match="pixel by pixel, in 64 passes"):
        ImageGraph(model)


def test_a_model_of_targets_asks_for_them() -> None:
    model = untrained_model(MODELS["all targets"])
    graph = ImageGraph(model)
    assert [each.name for each in graph.inputs] == ["noise", "label", "vector", "features", "caption"]
    with pytest.raises(InputError, match="give targets for label"):
        graph.arguments(model.block_draws(0, 0).rows(slice(1)))
