"""Requests that share passes: the same pixels alone and together, and refusals that say which field is wrong."""

from __future__ import annotations

import io
import json
import zipfile
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from cluster.serving.answers import Answer, Refusal
from cluster.serving.batch import ImagesTask, run_batch
from cluster.serving.bodies import ImagesBody
from cluster.serving.hosted_model import HostedModel
from freqgan.errors import RunError
from freqgan.generation.editing import redraw, weigh
from freqgan.generation.mixing import interpolated, mixed_coefficients, mixed_noises, shares_of_frames
from freqgan.generation.synthesiser import Generated
from freqgan.generation.targets import targets_for
from freqgan.pixels import to_pixels
from launch.settings.target_options import TargetOptions
from tests.support.serving import pixels_of, png_of

WAY = {"first": 1, "second": 2, "share": 0.5}


def task(deadline_s: float = float("inf"), category: str | None = None, **fields: Any) -> ImagesTask:
    return ImagesTask(ImagesBody.model_validate(fields | ({} if category is None else {"class": category})), deadline_s)


def answers(hosted: HostedModel, *tasks: ImagesTask) -> list[Answer]:
    results = run_batch(hosted, tasks)
    assert [result for result in results if not isinstance(result, Answer)] == []
    return [result for result in results if isinstance(result, Answer)]


def refusal(hosted: HostedModel, **fields: Any) -> Refusal:
    (result,) = run_batch(hosted, [task(**fields)])
    assert isinstance(result, Refusal)
    return result


def images_of(answer: Answer) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def furthest(png: bytes, image: torch.Tensor) -> int:
    """The largest difference of a PNG from an image (C, N, N) in [-1, 1], of 255."""
    wanted = to_pixels(image).numpy().astype(np.int64).transpose(1, 2, 0)
    return int(np.abs(pixels_of(png) - wanted).max())


def test_images_are_those_of_generate_alone_and_in_batches_of_up_to_64(gans: HostedModel) -> None:
    whole = gans.model.sample(seed=3, count=130).images
    for count in (1, 2, 3, 15, 16, 33, 64):
        shared = answers(gans, *(task(seed=3, first=number) for number in range(count)))
        assert max(furthest(answer.body, whole[number]) for number, answer in enumerate(shared)) <= 1
    (many,) = answers(gans, task(seed=3, first=62, count=5))
    assert max(furthest(png, whole[62 + i]) for i, png in enumerate(images_of(many))) <= 1


def test_one_image_costs_one_and_requests_share_a_pass(gans: HostedModel) -> None:
    (alone,) = answers(gans, task(seed=3))
    assert [(p.images, p.requests) for p in alone.passes] == [(1, 1)]
    shared = answers(gans, task(seed=1, count=40), task(seed=2, count=20), task(seed=3, count=20, part="chain"))
    assert [(p.images, p.requests) for a in shared for p in a.passes] == [(60, 2), (20, 1)]
    chain = gans.model.sample(seed=3, count=20).frequency
    assert max(furthest(png, chain[i]) for i, png in enumerate(images_of(shared[2]))) <= 1


def test_classes_and_truncation_are_those_of_the_command(gans: HostedModel) -> None:
    by_name, by_number, tame, _ = answers(
        gans, task(seed=5, category="ramps"), task(seed=5, label=1), task(seed=5, label=0, truncation=0.5), task()
    )
    model = gans.model
    wanted = model.draw(model.block_draws(5, 0, torch.tensor([1]))).images[0]
    assert furthest(by_name.body, wanted) <= 1
    assert by_name.body == by_number.body
    assert furthest(tame.body, model.draw(model.block_draws(5, 0, torch.tensor([0])).scaled(0.5)).images[0]) <= 1


def test_flow_experts_of_several_settings_go_into_passes_of_their_own(flows: HostedModel) -> None:
    before = flows.model.settings.generation
    two, four, guided = answers(
        flows, task(seed=1), task(seed=1, evaluations=4), task(seed=1, evaluations=4, solver="euler", label_guidance=2)
    )
    assert len({two.body, four.body, guided.body}) == 3
    assert [len(answer.passes) for answer in (two, four, guided)] == [1, 1, 1]
    assert flows.model.settings.generation == before
    assert furthest(two.body, flows.model.sample(seed=1, count=1).images[0]) <= 1


def test_bands_are_weighed_mixed_and_drawn_anew_as_the_commands_do(gans: HostedModel) -> None:
    model = gans.model
    first, second = model.draws(1, 1), model.draws(2, 1)
    weighed, redrawn, noises, coefficients = answers(
        gans,
        task(seed=1, gains={"HH1": 3}),
        task(seed=1, resample=["HH1"], resample_seed=2, gains={"LL1": 0.5}),
        task(mix={"coarse": 1, "fine": 2}),
        task(mix={"coarse": 1, "fine": 2, "by": "coefficients"}),
    )
    assert furthest(weighed.body, weigh(model, model.draw(first).images, {"HH1": 3})[0]) <= 1
    assert furthest(redrawn.body, weigh(model, redraw(model, first, ["HH1"], second), {"LL1": 0.5})[0]) <= 1
    assert furthest(noises.body, model.draw(mixed_noises(model.chain, first, second, 1)).images[0]) <= 1
    assert furthest(coefficients.body, mixed_coefficients(model, first, second, 1)[0]) <= 1


def test_bands_are_drawn_anew_from_the_seed_after_that_of_the_image(gans: HostedModel) -> None:
    left_out, given, as_drawn = answers(
        gans,
        task(seed=1, resample=["HH1"]),
        task(seed=1, resample=["HH1"], resample_seed=2),
        task(seed=1, resample_seed=1),
    )
    assert left_out.body == given.body != as_drawn.body
    assert as_drawn.body == answers(gans, task(seed=1))[0].body


def test_an_image_on_the_way_is_that_of_the_command(gans: HostedModel) -> None:
    model = gans.model
    begin, middle, end, switched = answers(
        gans,
        task(interpolate={"first": 1, "second": 2, "share": 0}),
        task(interpolate={"first": 1, "second": 2, "share": 0.25}, category="edges", truncation=0.5),
        task(interpolate={"first": 1, "second": 2, "share": 1}, gains={"HH1": 3}),
        task(interpolate={"first": 1, "second": 2, "share": 0.75, "second_class": "ramps"}, category="edges"),
    )
    first, second = (model.draw(model.draws(seed, 1)).images for seed in (1, 2))
    assert furthest(begin.body, first[0]) <= 1
    assert furthest(end.body, weigh(model, second, {"HH1": 3})[0]) <= 1
    edges, ramps = (torch.tensor([label]) for label in (0, 1))
    halves = [model.draws(seed, 1, edges).scaled(0.5) for seed in (1, 2)]
    way = interpolated(model.chain, halves[0], halves[1], shares_of_frames(5)).rows(slice(1, 2))
    assert furthest(middle.body, model.draw(way).images[0]) <= 1
    way = interpolated(model.chain, model.draws(1, 1, edges), model.draws(2, 1, ramps), [0.75])
    assert way.targets is not None
    assert way.targets.tolist() == [1]
    assert furthest(switched.body, model.draw(way).images[0]) <= 1


def test_an_example_gives_the_features_as_for_the_command(featured: HostedModel, tmp_path: Path) -> None:
    example, other = png_of(40, 30), png_of(20, 20, seed=1)
    like, again, unlike = answers(
        featured,
        task(seed=2, count=2, like=b64encode(example).decode()),
        task(seed=2, count=2, like=b64encode(example).decode()),
        task(seed=2, count=2, like=b64encode(other).decode()),
    )
    (tmp_path / "example.png").write_bytes(example)
    options = TargetOptions(like=str(tmp_path / "example.png"))
    targets = targets_for(featured.model, 2, 2, options.parts(featured.checkpoint, 2))
    wanted = featured.model.draw(featured.model.block_draws(2, 0, targets).rows(slice(2))).images
    assert max(furthest(png, image) for png, image in zip(images_of(like), wanted, strict=True)) <= 1
    assert like.body == again.body
    assert like.body != unlike.body
    few = ImagesTask(ImagesBody.model_validate({"like": b64encode(example).decode()}), pixels=1_000)
    for asked, part in ((few, "40 x 30 pixels"), (task(like=b64encode(example[:60]).decode()), "damaged or cut off")):
        (result,) = run_batch(featured, [asked])
        assert isinstance(result, Refusal)
        assert (result.field, part in result.message) == ("like", True), result


def test_layers_add_up_to_the_image(gans: HostedModel, flows: HostedModel) -> None:
    for hosted in (gans, flows):
        image, weighed, parts = answers(
            hosted, task(seed=4), task(seed=4, gains={"HL1": 2.5, "LL1": 0.5}), task(seed=4, format="layers")
        )
        layers = load_tensors(parts.body)
        assert layers.keys() == {"LL1", "HL1", "LH1", "HH1"}
        assert {(x.dtype, x.shape) for x in layers.values()} == {(torch.float16, (3, 16, 16))}
        whole = {band: x.float() for band, x in layers.items()}
        assert furthest(image.body, sum(whole.values(), torch.zeros(()))) <= 1
        gained = whole["LL1"] * 0.5 + whole["HL1"] * 2.5 + whole["LH1"] + whole["HH1"]
        assert furthest(weighed.body, gained) <= 1
        assert parts.headers == image.headers


def test_noise_on_conditions_is_that_of_the_block(flows: HostedModel) -> None:
    with_noise = flows.model.settings.generation.model_copy(update={"condition_noise": 0.3})
    before = flows.model.settings.generation
    flows.model.set_generation(with_noise)
    try:
        whole = flows.model.sample(seed=3, count=70).images
        shared = answers(flows, task(seed=3, first=63, count=2), task(seed=3, first=1))
        assert [furthest(png, whole[63 + i]) for i, png in enumerate(images_of(shared[0]))] == [0, 0]
        assert furthest(shared[1].body, whole[1]) == 0
    finally:
        flows.model.set_generation(before)


def test_formats_hold_the_same_images(gans: HostedModel) -> None:
    zipped, as_json, one = answers(
        gans, task(seed=3, count=2, first=7), task(seed=3, count=2, first=7, format="json"), task(seed=3, first=7)
    )
    with zipfile.ZipFile(io.BytesIO(zipped.body)) as archive:
        assert archive.namelist() == ["00007.png", "00008.png"]
    body = json.loads(as_json.body)
    assert [image["name"] for image in body["images"]] == ["00007.png", "00008.png"]
    assert [b64decode(image["png"]) for image in body["images"]] == images_of(zipped)
    assert (body["version"], body["model"]) == ("6", gans.digest)
    assert one.media_type == "image/png"
    assert one.headers == {"X-Freqgan-Version": "6", "X-Freqgan-Model": gans.digest}


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        ({"category": "cat"}, "class", "0=edges, 1=ramps"),
        ({"label": 2}, "label", "0 to 1"),
        ({"category": "edges", "label": 0}, "label", "twice"),
        ({"prompt": "a cat"}, "prompt", "conditioning=caption"),
        ({"prompt": " "}, "prompt", "empty"),
        ({"like": "AAAA"}, "like", "conditioning=features"),
        ({"vector": [1.0]}, "vector", "conditioning=embedding"),
        ({"evaluations": 4}, "evaluations", "no flow experts"),
        ({"label_guidance": 1}, "label_guidance", "leave it out"),
        ({"gains": {"HH9": 2}}, "gains", "no band is called"),
        ({"gains": {"HH1": 1e300}}, "gains", "smaller"),
        ({"resample": ["HH9"]}, "resample", "no band is called"),
        ({"resample": ["HH1"], "seed": 3, "resample_seed": 3}, "resample_seed", "give another one"),
        ({"resample": ["HH1"], "resample_seed": 0}, "resample_seed", "is the seed of the images"),
        ({"resample": ["HH1"], "part": "chain"}, "resample", "leave mix, interpolate and part out"),
        ({"resample": ["HH1"], "interpolate": WAY}, "resample", "leave mix, interpolate and part out"),
        ({"interpolate": WAY, "seed": 3}, "seed", "beside interpolate"),
        ({"interpolate": WAY, "mix": {"coarse": 1, "fine": 2}}, "interpolate", "beside mix"),
        ({"interpolate": WAY | {"second_class": "cat"}}, "class", "0=edges, 1=ramps"),
        ({"format": "layers", "count": 2}, "format", "zip or json"),
        ({"mix": {"coarse": 1, "fine": 2, "at": 7}}, "mix.at", "at 7: the picture up to LL"),
        ({"mix": {"coarse": 1, "fine": 2}, "seed": 3}, "seed", "beside mix"),
        ({"format": "png", "count": 2}, "format", "zip or json"),
    ],
)
def test_what_the_model_cannot_do_is_refused(gans: HostedModel, fields: dict[str, Any], field: str, part: str) -> None:
    result = refusal(gans, **fields)
    assert result.status in (400, 422)
    assert (result.field, part in result.message) == (field, True), result
    assert "--" not in result.message


def test_a_wrong_request_does_not_disturb_those_beside_it(gans: HostedModel) -> None:
    good, wrong, other = run_batch(gans, [task(seed=1), task(label=9), task(seed=2)])
    assert isinstance(wrong, Refusal)
    assert [good, other] == [replaced for replaced in (good, other) if isinstance(replaced, Answer)]


def test_requests_that_nobody_waits_for_are_not_drawn(gans: HostedModel) -> None:
    late, good = run_batch(gans, [task(deadline_s=1, seed=1), task(deadline_s=3, seed=2)], clock=lambda: 2.0)
    assert isinstance(late, Refusal)
    assert late.status == 504
    assert isinstance(good, Answer)


def test_a_pass_that_fails_costs_the_request_that_makes_it_fail_alone(
    gans: HostedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, errors = gans.model.draw, list[BaseException]()

    def failing(draws: Any) -> Generated:
        if draws.noises.shape[1] != 1:
            raise MemoryError("too many")
        return draw(draws)

    monkeypatch.setattr(gans.model, "draw", failing)
    one, two, three = run_batch(gans, [task(seed=1), task(seed=2, count=2), task(seed=3)], on_error=errors.append)
    assert isinstance(one, Answer)
    assert isinstance(three, Answer)
    assert isinstance(two, Refusal)
    assert (two.status, "too many" in two.message, len(errors)) == (500, False, 2)


def test_errors_of_a_run_are_no_fault_of_the_request() -> None:
    assert Refusal.of(RunError("storage gave up")).status == 503
