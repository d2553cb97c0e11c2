"""Images that are sent: enlarged, edited, styled, taken apart, as the commands of these names do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TypeVar

from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.data.image_files import fitted_image
from cluster.imaging.decomposition import Decomposition, decompose, parse_packets
from cluster.imaging.image_writing import image_files
from cluster.imaging.low_images import check_level, detail_draws, read_low_image
from cluster.imaging.natural import read_natural
from cluster.imaging.pictures import encode_png, to_image
from cluster.run.labels import class_of, targets_of_images
from cluster.serving.answers import JSON, PNG, TENSORS, Answer, PassRecord, Refusal
from cluster.serving.batch import BROKEN, LATE, OnError, generation_by, generation_of, made_text, refusal_of
from cluster.serving.bodies import BodyError, DecomposeForm, EditForm, RequestBody, StyleForm, SuperResolveForm
from cluster.serving.hosted_model import HostedModel, takes_images
from cluster.serving.limits import Limits
from freqgan.errors import FreqganError, InputError
from freqgan.generation.editing import check_encodable, encode, redraw, super_resolve, weigh
from freqgan.generation.style_by_bands import style_by_bands, style_mask
from freqgan.generation.style_options import StyleOptions
from freqgan.model.settings import ModelSettings
from freqgan.transforms import parse_transform

Result = TypeVar("Result")


class LateError(FreqganError):
    """Nobody waits for the answer any more."""


def answer_upload(
    hosted: HostedModel,
    form: RequestBody,
    limits: Limits,
    deadline_s: float = float("inf"),
    on_error: OnError = lambda error: None,
) -> Answer | Refusal:
    """Return the answer to one upload.

    Args:
        hosted: the model; styles and decompositions take none.
        form: of one of the kinds that this module knows.
        limits: of pixels.
        deadline_s: until when, on the clock ``time.monotonic``, somebody waits.
        on_error: gets what the upload cannot be blamed for.

    """
    if time.monotonic() >= deadline_s:
        return LATE
    try:
        if isinstance(form, StyleForm):
            return _style(form, limits, deadline_s)
        if isinstance(form, DecomposeForm):
            return _decompose(form, limits)
        if isinstance(form, SuperResolveForm):
            return _super_resolve(hosted, form, limits)
        assert isinstance(form, EditForm)
        return _edit(hosted, form, limits)
    except LateError:
        return LATE
    except FreqganError as error:
        return refusal_of(error)
    except Exception as error:
        on_error(error)
        return BROKEN


def needs_model(form: RequestBody) -> bool:
    """Return whether the answer to ``form`` is the model's."""
    return isinstance(form, SuperResolveForm | EditForm)


def _super_resolve(hosted: HostedModel, form: SuperResolveForm, limits: Limits) -> Answer:
    model = hosted.model
    _check_takes_images(model.settings, "enlarged")
    check_level(model.settings, form.level)
    label = class_of(form.category, hosted.checkpoint)
    low = _about("image", lambda: read_low_image(form.image, "image", model, form.level, limits.pixels)).low
    with generation_by(model, generation_of(form, model.settings)):
        return _pass(hosted, lambda: super_resolve(model, low, form.level, detail_draws(model, form.seed, 1, label)))


def _check_takes_images(settings: ModelSettings, what: str) -> None:
    """Refuse an image where the model's own are none that a PNG holds."""
    if not takes_images(settings):
        raise BodyError(
            f"the model makes {made_text(settings)}, and an image that is sent is none of these, so that it cannot be "
            f"{what}: draw with /v1/images, whose gains and resample act on bands, or give a file to `freqgan edit` or "
            "`freqgan super-resolve`",
            "image",
        )


def _edit(hosted: HostedModel, form: EditForm, limits: Limits) -> Answer:
    if not form.gains and not form.resample:
        raise BodyError('nothing to do: give resample, such as HL1,LH1, or gains, such as {"HH1": 1.5}')
    model = hosted.model
    _check_takes_images(model.settings, "edited")
    label = class_of(form.category, hosted.checkpoint)
    if form.resample:
        _about("resample", lambda: check_encodable(model))
    image = _about("image", lambda: fitted_image(form.image, "image", model.settings, limits.pixels))
    with generation_by(model, generation_of(form, model.settings)):
        return _pass(hosted, lambda: _edit_image(hosted, form, image, label))


def _edit_image(hosted: HostedModel, form: EditForm, image: Tensor, label: int | None) -> Tensor:
    """Return ``image`` (1, C, N, N) with the bands of ``form`` drawn anew and weighed."""
    model, after = hosted.model, image
    if form.resample:
        targets = targets_of_images(1, label, model, hosted.checkpoint.class_names)
        draws, other = encode(model, image, targets), model.draws(form.resample_seed, 1)
        after = _about("resample", lambda: redraw(model, draws, form.resample, other))
    return _about("gains", lambda: weigh(model, after, form.gains)) if form.gains else after


def _pass(hosted: HostedModel, make: Callable[[], Tensor]) -> Answer:
    """Return the one image (1, C, N, N) that ``make`` makes as a PNG."""
    begun_s = time.perf_counter()
    file = image_files(make(), hosted.model.settings, "png")[0].data
    record = PassRecord(time.perf_counter() - begun_s, 1, 1)
    return Answer(file, PNG, hosted.headers, 1, (record,))


def _style(form: StyleForm, limits: Limits, deadline_s: float) -> Answer:
    strength = tuple(part for part in (form.strength or "").split(",") if part.strip())
    options = _about("transform", lambda: _style_options(form, strength))

    def on_time(done: int, total: int) -> None:
        if time.monotonic() >= deadline_s:
            raise LateError(f"{done} of {total} bands were done")

    content = _about("content", lambda: read_natural(form.content, "content", limits.pixels)).pixels
    texture = _about("style", lambda: read_natural(form.style, "style", limits.pixels)).pixels
    mask = None
    if form.mask is not None:
        data = form.mask
        white = _about("mask", lambda: read_natural(data, "mask", limits.pixels)).pixels
        mask = _about("mask", lambda: style_mask(white, "mask", content, "content"))
    result = _about("levels", lambda: style_by_bands(options, content, texture, mask, on_time))
    return Answer(encode_png(to_image(result.pixels[0].numpy())), PNG, images=1)


def _style_options(form: StyleForm, strength: tuple[str, ...]) -> StyleOptions:
    return StyleOptions(transform=form.transform, levels=form.levels, strength=strength, seed=form.seed)


def _decompose(form: DecomposeForm, limits: Limits) -> Answer:
    packets = parse_packets(form.packets)
    transform = _about("transform", lambda: parse_transform(form.transform, form.levels, packets))
    stored = _about("image", lambda: read_natural(form.image, "image", limits.pixels)).pixels
    parts = _about("levels", lambda: decompose(stored, transform))
    if form.format == "json":
        rows = [row._asdict() for row in parts.rows()]
        return Answer(json.dumps({"transform": transform.spec, "size": parts.size, "bands": rows}).encode(), JSON)
    if form.format == "safetensors":
        return Answer(save_tensors(_tensors(parts)), TENSORS)
    return Answer(encode_png(parts.picture()), PNG, images=1)


def _tensors(parts: Decomposition) -> dict[str, Tensor]:
    return {str(band): x.contiguous() for band, x in parts.coefficients.items()}


def _about(name: str, run: Callable[[], Result]) -> Result:
    """Return what ``run`` does; what is wrong with it is said of the field ``name``."""
    try:
        return run()
    except InputError as error:
        refusal = refusal_of(error)
        raise BodyError(refusal.message, refusal.field or name) from error
