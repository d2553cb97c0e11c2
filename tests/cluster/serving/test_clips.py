"""Models of clips, volumes and many channels answer with files that hold all of an image, and say what they are."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load as load_tensors

from cluster.imaging.image_writing import stored_arrays
from cluster.serving.answers import Answer, Refusal
from cluster.serving.batch import ImagesTask, run_batch
from cluster.serving.bodies import DecomposeForm, EditForm, ImagesBody, SuperResolveForm
from cluster.serving.hosted_model import HostedModel, load_model
from cluster.serving.limits import Limits
from cluster.serving.model_source import ModelSource
from cluster.serving.uploads import answer_upload
from tests.support.clip_runs import (
    BANDS,
    FRAMES,
    RANGE,
    SIDE,
    write_runs,
)
from tests.support.serving import png_of


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostedModel]:
    """A model of clips, one of volumes and one of images of many channels."""
    folder = tmp_path_factory.mktemp("models")
    runs = write_runs(folder)
    return {name: load_model(ModelSource(str(run)).newest()) for name, run in runs.items()}


def asked(hosted: HostedModel, **fields: Any) -> Answer | Refusal:
    return run_batch(hosted, [ImagesTask(ImagesBody.model_validate(fields))])[0]


def answered(hosted: HostedModel, **fields: Any) -> Answer:
    answer = asked(hosted, **fields)
    assert isinstance(answer, Answer), answer
    return answer


def frames_of(webp: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The frames (T, H, W, 3) of an animation."""
    with Image.open(io.BytesIO(webp)) as animation:
        pictures = []
        for number in range(getattr(animation, "n_frames", 1)):
            animation.seek(number)
            pictures.append(np.asarray(animation.convert("RGB")).astype(np.int64))
    return np.stack(pictures)


def wanted(hosted: HostedModel, seed: int, count: int = 1) -> list[Any]:
    return stored_arrays(hosted.model.sample(seed, count, whole_blocks=False).images, hosted.model.settings)


def test_a_clip_comes_as_an_animation_and_as_numbers(hosted: dict[str, HostedModel]) -> None:
    model = hosted["clips"]
    plain = answered(model, seed=3)
    assert plain.media_type == "image/webp"
    stored = np.load(io.BytesIO(answered(model, seed=3, format="npy").body), allow_pickle=False)
    assert (stored.shape, stored.dtype) == ((FRAMES, SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(frames_of(plain.body), stored)
    assert np.abs(stored.astype(int) - wanted(model, 3)[0]).max() <= 1
    assert answered(model, seed=3, format="preview").body == plain.body


def test_several_clips_come_in_a_zip_and_in_json(hosted: dict[str, HostedModel]) -> None:
    model = hosted["clips"]
    with zipfile.ZipFile(io.BytesIO(answered(model, seed=3, count=2, first=5).body)) as archive:
        assert archive.namelist() == ["00005.webp", "00006.webp"]
        clips = [archive.read(name) for name in archive.namelist()]
    body = json.loads(answered(model, seed=3, count=2, first=5, format="json").body)
    assert [base64.b64decode(image["webp"]) for image in body["images"]] == clips


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "preview"),
    [
        ("volumes", (FRAMES, SIDE, SIDE, 1), np.uint16, "image/webp"),
        ("many", (SIDE, SIDE, BANDS), np.float32, "image/png"),
    ],
)
def test_what_no_picture_holds_comes_as_numbers_and_as_a_preview(
    hosted: dict[str, HostedModel], name: str, shape: tuple[int, ...], dtype: type, preview: str
) -> None:
    answer = answered(hosted[name], seed=1)
    assert answer.media_type == "application/octet-stream"
    stored = np.load(io.BytesIO(answer.body), allow_pickle=False)
    assert (stored.shape, stored.dtype) == (shape, dtype)
    assert np.abs(stored.astype(float) - wanted(hosted[name], 1)[0]).max() <= 300
    seen = answered(hosted[name], seed=1, format="preview")
    assert seen.media_type == preview
    shown = frames_of(seen.body)
    assert shown.shape == (FRAMES if name == "volumes" else 1, SIDE, SIDE, 3)
    least, greatest = RANGE if name == "many" else (0, 65535)
    values = stored[..., [4, 2, 0]][None] if name == "many" else stored
    assert np.abs((values - least) / (greatest - least) * 255 - shown).max() <= 1


@pytest.mark.parametrize(
    ("name", "fields", "part"),
    [
        ("clips", {"format": "png"}, "clips of 4 frames, of 3 channels and 8 bits: take webp or npy"),
        ("many", {"format": "png"}, "images of 5 channels and 32 bits: take npy or preview"),
        ("many", {"format": "webp"}, "take npy or preview"),
        ("clips", {"format": "webp", "count": 2}, "take zip or json"),
        ("clips", {"format": "preview", "count": 2}, "take zip or json"),
    ],
)
def test_formats_that_cannot_hold_an_image_are_refused(
    hosted: dict[str, HostedModel], name: str, fields: dict[str, Any], part: str
) -> None:
    refusal = asked(hosted[name], **fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.field) == (422, "format")
    assert part in refusal.message


def test_layers_of_a_clip_add_up_to_it_and_gains_act_on_its_motion(hosted: dict[str, HostedModel]) -> None:
    model = hosted["clips"]
    layers = load_tensors(answered(model, seed=2, format="layers").body)
    assert set(layers) == {f"{time}.{band}" for time in ("tL", "tH1") for band in ("LL1", "HL1", "LH1", "HH1")}
    stored = np.load(io.BytesIO(answered(model, seed=2, format="npy").body))
    total = sum(layer.float() for layer in layers.values())
    frames = np.asarray(total).reshape(FRAMES, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    assert np.abs(((frames + 1) * 127.5).clip(0, 255) - stored).max() <= 2
    still = np.load(io.BytesIO(answered(model, seed=2, format="npy", gains={"tH1": 0}).body)).astype(int)
    assert np.abs(still[::2] - still[1::2]).max() <= 1  # two neighbours have one average, and no change
    assert np.abs(stored - still).max() > 10


def test_motion_is_drawn_anew_and_taken_of_another_seed(hosted: dict[str, HostedModel]) -> None:
    model = hosted["clips"]

    def means(body: bytes) -> Any:
        return np.load(io.BytesIO(body)).reshape(FRAMES // 2, 2, SIDE, SIDE, 3).astype(float).mean(1)

    plain = answered(model, seed=2, format="npy", gains={"tL": 0.1, "tH1": 0.1}).body
    for fields in ({"seed": 2, "resample": ["tH1"]}, {"mix": {"coarse": 2, "fine": 9, "at": "time"}}):
        other = answered(model, **fields, format="npy", gains={"tL": 0.1, "tH1": 0.1}).body
        assert other != plain
        assert np.abs(means(other) - means(plain)).max() <= 1  # averages stay
    refusal = asked(hosted["many"], mix={"coarse": 2, "fine": 9, "at": "time"})
    assert isinstance(refusal, Refusal)
    assert (refusal.field, "at time: " in refusal.message) == ("mix.at", True)


def test_the_facts_say_what_the_images_are(hosted: dict[str, HostedModel]) -> None:
    clips, volumes, many = (hosted[name].facts() for name in ("clips", "volumes", "many"))
    assert (clips["frames"], clips["channels"], clips["value_range"]) == (FRAMES, 3, [0.0, 255.0])
    assert (clips["formats"], clips["takes_images"]) == (["webp", "npy"], False)
    assert clips["temporal_bands"] == {"tL": 2, "tH1": 2}
    assert (volumes["formats"], volumes["value_range"]) == (["npy", "webp"], [0.0, 65535.0])
    assert (many["frames"], many["channels"], many["value_range"]) == (1, BANDS, list(RANGE))
    assert (many["shown_channels"], many["formats"]) == ([4, 2, 0], ["npy"])


def test_images_that_are_sent_are_refused_where_the_model_has_none_like_them(hosted: dict[str, HostedModel]) -> None:
    image = png_of(SIDE, SIDE)
    for name in ("clips", "many"):
        for form in (SuperResolveForm(image=image), EditForm(image=image, gains={"HH1": 0.0})):
            refusal = answer_upload(hosted[name], form, Limits())
            assert isinstance(refusal, Refusal)
            assert (refusal.status, refusal.field) == (422, "image")
            assert "`freqgan edit`" in refusal.message
        assert isinstance(answer_upload(hosted[name], DecomposeForm(image=image, levels=1), Limits()), Answer)
