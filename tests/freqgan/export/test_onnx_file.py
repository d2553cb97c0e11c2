from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import torch

from freqgan.errors import RunError
from freqgan.export.image_graph import ImageGraph
from freqgan.export.onnx_file import check_onnx, onnx_bytes, traced
from freqgan.model.settings import ModelSettings
from tests.support.commands import ROOT
from tests.support.companions import companion_settings
from tests.support.flows import flow_settings
from tests.support.models import tiny_settings
from tests.support.synthesisers import ALL_TARGETS, untrained_model

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
LONG = pytest.mark.long
SHORT = {
    "rings, all targets": tiny_settings(
        transform="radial:2,2", levels=2, classes=3, conditioning=ALL_TARGETS, plan={"bands": ["LL2"]}
    ),
}
OTHERS: dict[str, ModelSettings] = {
    "a flow of whole images": companion_settings("flow_matching", plan={"bands": "none"}),
    "rectangles of odd sides": tiny_settings(image_size="33x47", levels=2),
    "the flow experts of many passes": flow_settings(plan={"high_gans": {1: 1}}, generation={"evaluations": 30}),
    **{name: tiny_settings(transform=name) for name in ("dwt:db2", "dwt:bior4.4", "dct", "fft:shannon", "fft:meyer")},
    "fusion": tiny_settings(system="fusion", loss={"kind": "hinge"}),
    "rings": tiny_settings(transform="radial:2,2", levels=2),
    "an ensemble": tiny_settings(plan={"low_gans": {1: 2}}),
    "hurwitz": tiny_settings(noise={"generation": "hurwitz", "dimensions": 16}),
    "16 bits": tiny_settings(bit_depth=16, channels=1),
    "clips": flow_settings(frames=4, time_levels=1, noise={"dimensions": 64}, generation={"evaluations": 2}),
    "values of many channels": flow_settings(channels=5, bit_depth=32, value_range=(-1024.0, 3071.0)),
    "volumes by another wavelet": tiny_settings(
        frames=4, time_levels=1, time_wavelet="db2", channels=1, bit_depth=16, noise={"dimensions": 64}
    ),
    "flow experts": flow_settings(classes=3, generation={"evaluations": 2, "label_guidance": 1.0}),
    **{kind: companion_settings(kind, plan={"bands": "none"}) for kind in ("dcgan", "vae", "diffusion", "flow")},
}
MODELS = {**SHORT, **OTHERS}


@pytest.fixture(autouse=True)
def quiet_exporter() -> Iterator[None]:
    """It tells of every operator of packages that are not here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[LONG] * (name in OTHERS)) for name in MODELS])
def test_onnxruntime_makes_the_same_pixels(name: str) -> None:
    model = untrained_model(MODELS[name])
    content = onnx_bytes(model)
    check = check_onnx(content, model)
    assert check.images == 4
    assert check.largest <= (1 if model.settings.bit_depth == 8 else 257)
    assert check.share < 0.02
    session, graph = onnxruntime.InferenceSession(content), ImageGraph(model)
    inputs = {each.name: each.zeros(3).numpy() + each.dtype.is_floating_point for each in graph.inputs}
    assert str(ROOT).encode() not in content  # nothing in it says where the source is
    (images,) = session.run(None, {name: x.astype(x.dtype) for name, x in inputs.items()})
    frames = (model.settings.frames,) if model.settings.frames > 1 else ()
    assert images.shape == (3, *frames, *model.settings.size, model.settings.channels)  # of another batch


def test_another_model_is_told_from_the_file_s() -> None:
    settings = companion_settings("dcgan", plan={"bands": "none"})
    content = onnx_bytes(untrained_model(settings))
    other = untrained_model(settings.model_copy(update={"seed": 1}))
    with pytest.raises(RunError, match="makes other pixels than the model: up to"):
        check_onnx(content, other)


def test_a_program_of_torch_export_makes_the_same_pixels() -> None:
    model = untrained_model(tiny_settings(plan={"bands": ["LL1"]}))
    buffer = io.BytesIO()
    torch.export.save(traced(ImageGraph(model).eval()), buffer)
    buffer.seek(0)
    program = torch.export.load(buffer).module()
    draws = model.block_draws(0, 0).rows(slice(5))
    arguments = ImageGraph(model).arguments(draws)
    with torch.no_grad():
        torch.testing.assert_close(program(*arguments), ImageGraph(model)(*arguments), atol=1, rtol=0)
