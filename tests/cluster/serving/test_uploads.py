"""Images that are sent: answers of real models, and refusals of what is no image, too large or too slow."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load as load_tensors

from cluster.serving.answers import Answer, Refusal
from cluster.serving.bodies import DecomposeForm, EditForm, RequestBody, StyleForm, SuperResolveForm
from cluster.serving.hosted_model import HostedModel
from cluster.serving.limits import Limits
from cluster.serving.uploads import answer_upload
from tests.support.serving import pixels_of, png_of

LIMITS = Limits(pixels=64 * 64)


def answer(hosted: HostedModel, form: RequestBody, **how: Any) -> Answer:
    result = answer_upload(hosted, form, LIMITS, **how)
    assert isinstance(result, Answer), result
    return result


def refusal(hosted: HostedModel, form: RequestBody, **how: Any) -> Refusal:
    result = answer_upload(hosted, form, LIMITS, **how)
    assert isinstance(result, Refusal)
    return result


def test_a_small_image_is_enlarged_and_a_large_one_reduced_first(gans: HostedModel) -> None:
    small = answer(gans, SuperResolveForm(image=png_of(8, 8)))
    assert pixels_of(small.body).shape == (16, 16, 3)
    assert small.headers["X-Freqgan-Version"] == "6"
    edges, ramps = (answer(gans, SuperResolveForm(image=png_of(8, 8), **{"class": c})) for c in ("edges", "ramps"))
    assert edges.body != ramps.body
    assert pixels_of(answer(gans, SuperResolveForm(image=png_of(40, 20))).body).shape == (16, 16, 3)


def test_bands_of_an_image_are_weighed(gans: HostedModel) -> None:
    image = png_of(16, 16)
    same = answer(gans, EditForm(image=image, gains={"HH1": 1.0}))
    assert np.abs(pixels_of(same.body) - pixels_of(image)).max() == 0
    assert np.abs(pixels_of(answer(gans, EditForm(image=image, gains={"HH1": 0.0})).body) - pixels_of(image)).max() > 9


def test_bands_of_an_image_are_drawn_anew_by_flows(flows: HostedModel) -> None:
    image = png_of(16, 16)
    edited = answer(flows, EditForm(image=image, resample=["HH1"], evaluations=4, **{"class": "edges"}))
    assert pixels_of(edited.body).shape == (16, 16, 3)
    refused = refusal(flows, EditForm(image=image, resample=["HH1"]))
    assert refused.field == "class"
    assert refused.message.endswith("say which the given images are of by class; it has 2: 0=edges, 1=ramps")


def test_styles_and_decompositions_take_images_of_any_size(gans: HostedModel) -> None:
    content, texture, mask = png_of(40, 24), png_of(20, 33, 1), png_of(40, 24, 2, "L")
    styled = answer(gans, StyleForm(content=content, style=texture, mask=mask, strength="0.8, LL=0.5"))
    assert pixels_of(styled.body).shape == (24, 40, 3)
    table = json.loads(answer(gans, DecomposeForm(image=content, levels=2, format="json")).body)
    assert [row["band"] for row in table["bands"]] == ["LL2", "HL2", "LH2", "HH2", "HL1", "LH1", "HH1"]
    tensors = load_tensors(answer(gans, DecomposeForm(image=content, levels=2, format="safetensors")).body)
    assert tensors["HH1"].shape == (1, 3, 12, 20)
    assert answer(gans, DecomposeForm(image=content)).media_type == "image/png"


@pytest.mark.parametrize(
    ("form", "field", "part"),
    [
        (SuperResolveForm(image=b"no image"), "image", "no JPEG, PNG or WebP"),
        (SuperResolveForm(image=png_of(16, 16)[:-20]), "image", "damaged or cut off"),
        (SuperResolveForm(image=png_of(12, 12)), "image", "12 x 12 pixels"),
        (SuperResolveForm(image=png_of(65, 64)), "image", "more than the 4096 allowed"),
        (SuperResolveForm(image=png_of(8, 8), level=3), "level", "levels 1 (finest) to 1"),
        (SuperResolveForm(image=png_of(8, 8), evaluations=2), "evaluations", "no flow experts"),
        (EditForm(image=png_of(16, 16)), None, "nothing to do"),
        (EditForm(image=png_of(8, 8), gains={"HH1": 2}), "image", "at least as large"),
        (EditForm(image=png_of(16, 16), gains={"XX": 2}), "gains", "no band is called"),
        (EditForm(image=png_of(16, 16), resample=["HH1"]), "resample", "GANs"),
        (StyleForm(content=png_of(16, 16), style=b""), "style", "no JPEG, PNG or WebP"),
        (StyleForm(content=png_of(16, 16), style=png_of(16, 16), mask=png_of(8, 8)), "mask", "make them equal"),
        (StyleForm(content=png_of(16, 16), style=png_of(16, 16), strength="2"), "strength", "from 0"),
        (StyleForm(content=png_of(16, 16), style=png_of(16, 16), transform="dwt:no"), "transform", "dwt:no"),
        (DecomposeForm(image=png_of(16, 16), packets="x"), "packets", "LEVEL=TIMES"),
        (DecomposeForm(image=png_of(16, 16), levels=10), "levels", ""),
        (DecomposeForm(image=png_of(100, 100)), "image", "more than the 4096 allowed"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(
    gans: HostedModel, form: RequestBody, field: str | None, part: str
) -> None:
    result = refusal(gans, form)
    assert result.status in (400, 422), result
    assert part in result.message, result
    assert "--" not in result.message
    assert result.field == field, result


def test_a_bomb_is_refused_by_its_header(gans: HostedModel) -> None:
    buffer = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(buffer, "PNG")
    assert "more than the 4096 allowed" in refusal(gans, DecomposeForm(image=buffer.getvalue())).message


def test_a_style_that_nobody_waits_for_ends(gans: HostedModel) -> None:
    form = StyleForm(content=png_of(16, 16), style=png_of(16, 16))
    assert refusal(gans, form, deadline_s=0.0).status == 504
