"""Requests for images, drawn together: those of the same settings share passes of at most 64 images.

A request has the same pixels alone and among others, but for the rounding of convolutions: 1 of 255 at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from cluster.data.image_files import fitted_image
from cluster.data.settings import MAX_PIXELS
from cluster.imaging.image_writing import image_files
from cluster.run.feature_networks import check_shows_features, features_like
from cluster.run.labels import class_of
from cluster.serving.answers import Answer, PassRecord, Refusal
from cluster.serving.bodies import BodyError, GenerationFields, ImagesBody
from cluster.serving.hosted_model import HostedModel
from cluster.serving.packaging import Format, file_kinds, pack_files, pack_layers, preview_files
from freqgan.errors import FreqganError, InputError, counted
from freqgan.generation.editing import layers, redraw, weigh
from freqgan.generation.mixing import check_place, interpolated, mixed_coefficients, mixed_noises
from freqgan.generation.options import GenerationOptions
from freqgan.generation.parts import check_part, part_of
from freqgan.generation.synthesiser import BLOCK, Draws, Generated, Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.settings import ModelSettings

MOST_IMAGES = BLOCK
"""Images of one pass."""
LATE = Refusal(504, "the time for an answer was over before the model came to it: try again later, or ask for less")
BROKEN = Refusal(500, "the model failed at this request, which is in the log of its worker; ask for something else")

Clock = Callable[[], float]
OnError = Callable[[BaseException], None]


@dataclass(frozen=True)
class ImagesTask:
    """One request; until when, on the clock of the worker, somebody waits for its answer; the pixels of an example."""

    body: ImagesBody
    deadline_s: float = float("inf")
    pixels: int = MAX_PIXELS


class Piece(NamedTuple):
    """Draws of one block, the rows of them that are asked for, and what they are mixed with, if with anything."""

    draws: Draws
    rows: slice
    other: Draws | None = None

    @property
    def samples(self) -> int:
        """The images that a pass of it makes."""
        return self.draws.noises.shape[1]


class Drawing(NamedTuple):
    """A request on its way: how flow experts generate, its pieces, and the images of each that is drawn."""

    task: ImagesTask
    generation: GenerationSettings
    pieces: list[Piece]

    @property
    def is_alone(self) -> bool:
        """Whether it takes more than a pass of the model over its draws, and so shares none."""
        mix = self.task.body.mix
        return bool(self.task.body.resample) or (mix is not None and mix.by == "coefficients")


def run_batch(
    hosted: HostedModel,
    tasks: Sequence[ImagesTask],
    clock: Clock = time.monotonic,
    on_error: OnError = lambda error: None,
) -> list[Answer | Refusal]:
    """Return the answers to ``tasks``, in their order.

    Args:
        hosted: the model.
        tasks: of any settings.
        clock: that of the deadlines.
        on_error: gets what no task can be blamed for.

    """
    results: dict[int, Answer | Refusal] = {}
    drawings: dict[int, Drawing] = {}
    for number, task in enumerate(tasks):
        try:
            drawings[number] = _prepare(hosted, task)
        except FreqganError as error:
            results[number] = refusal_of(error)
    for group in _groups(drawings):
        on_time = [n for n in group if clock() < drawings[n].task.deadline_s]
        results |= dict.fromkeys(set(group) - set(on_time), LATE)
        if on_time:
            results |= _answers(hosted, {n: drawings[n] for n in on_time}, on_error)
    return [results[number] for number in range(len(tasks))]


def refusal_of(error: FreqganError) -> Refusal:
    """Return the refusal that says ``error``."""
    refusal = Refusal.of(error)
    return replace(refusal, status=422, field=error.field) if isinstance(error, BodyError) else refusal


def _groups(drawings: dict[int, Drawing]) -> list[list[int]]:
    """Return the numbers of those that share passes."""
    groups: dict[str, list[int]] = {}
    for number, drawing in drawings.items():
        key = f"alone {number}" if drawing.is_alone else drawing.generation.model_dump_json()
        groups.setdefault(key, []).append(number)
    return list(groups.values())


# -- from a request to draws ----------------------------------------------------------------------


def _prepare(hosted: HostedModel, task: ImagesTask) -> Drawing:
    """Return what is to be drawn for ``task``; InputError where the model has no such thing."""
    body, model = task.body, hosted.model
    form_of(body, model.settings)
    _check_seeds(body)
    check_part(model.settings, body.part)
    generation = generation_of(body, model.settings)
    with generation_by(model, generation):
        pieces = list(_pieces_of(hosted, task))
    return Drawing(task, generation, pieces)


def _check_seeds(body: ImagesBody) -> None:
    """Refuse seeds that have no meaning together, and what is of the blended images of one seed alone."""
    two = [name for name in ("mix", "interpolate") if getattr(body, name) is not None]
    if len(two) > 1:
        raise BodyError("interpolate: it has no meaning beside mix; leave one of the two out", "interpolate")
    if two and (body.seed is not None or body.part != "image"):
        name = "seed" if body.seed is not None else "part"
        raise BodyError(f"{name}: it has no meaning beside {two[0]}; leave one of the two out", name)
    if body.resample and (two or body.part != "image"):
        raise BodyError(
            "resample: it is of the blended images of one seed; leave mix, interpolate and part out", "resample"
        )
    if body.resample and body.resample_seed == (body.seed or 0):
        raise BodyError(
            f"resample_seed {body.resample_seed} is the seed of the images, whose bands it would draw as they are: "
            "give another one, or leave it out",
            "resample_seed",
        )


def form_of(body: ImagesBody, settings: ModelSettings) -> Format:
    """Return the format of the answer: as asked for, else one file of the usual kind or a zip."""
    if body.count > 1 and body.format not in (None, "zip", "json"):
        raise BodyError(f"format {body.format} holds one image, and count is {body.count}: take zip or json", "format")
    kinds = file_kinds(settings)
    if body.format in ("png", "webp", "npy") and body.format not in kinds:
        others = " or ".join([*kinds, *(["preview, 8 bits of what people see"] if kinds[0] == "npy" else [])])
        raise BodyError(
            f"format {body.format} cannot hold what the model makes, {made_text(settings)}: take {others}", "format"
        )
    return body.format or (cast("Format", kinds[0]) if body.count == 1 else "zip")


def made_text(settings: ModelSettings) -> str:
    """Return what the images of a model are, for a sentence that refuses something: "clips of 16 frames"."""
    kind = f"clips of {settings.frames} frames" if settings.frames > 1 else "images"
    of = f"{counted(settings.channels, 'channel')} and {settings.bit_depth} bits"
    return f"{kind}, of {of}" if settings.frames > 1 else f"{kind} of {of}"


def generation_of(body: GenerationFields, settings: ModelSettings) -> GenerationSettings:
    """Return the model's settings with those of ``body`` in their place; InputError where it does not know these."""
    options = GenerationOptions(
        evaluations=body.evaluations, solver=body.solver, guidance=body.guidance, label_guidance=body.label_guidance
    )
    return options.apply(settings)


@contextmanager
def generation_by(model: Synthesiser, generation: GenerationSettings) -> Iterator[None]:
    """Have ``model`` generate by ``generation`` for a while, and then as before."""
    before = model.settings.generation
    model.set_generation(generation)
    try:
        yield
    finally:
        model.set_generation(before)


def _pieces_of(hosted: HostedModel, task: ImagesTask) -> Iterator[Piece]:
    if task.body.mix is not None:
        return _mixed_pieces(hosted, task)
    return _plain_pieces(hosted, task) if task.body.interpolate is None else _interpolated_pieces(hosted, task)


def _plain_pieces(hosted: HostedModel, task: ImagesTask) -> Iterator[Piece]:
    body, model = task.body, hosted.model
    seed = body.seed or 0
    pieces = _pieces(model, seed, body, _targets(hosted, task, seed))
    others: Sequence[Draws | None] = [None] * len(pieces)
    if body.resample:
        other_seed = seed + 1 if body.resample_seed is None else body.resample_seed
        others = [piece.draws for piece in _pieces(model, other_seed, body, None)]
    for piece, other in zip(pieces, others, strict=True):
        yield piece._replace(draws=piece.draws.scaled(body.truncation), other=other)


def _mixed_pieces(hosted: HostedModel, task: ImagesTask) -> Iterator[Piece]:
    body, model, mix = task.body, hosted.model, task.body.mix
    assert mix is not None
    try:
        check_place(model.chain, mix.at)
    except InputError as error:
        raise BodyError(str(error).replace("--", ""), "mix.at") from error
    asked = _targets(hosted, task, mix.coarse)
    halves = (_pieces(model, seed, body, asked) for seed in (mix.coarse, mix.fine))
    for coarse, fine in zip(*halves, strict=True):
        first, second = (piece.draws.scaled(body.truncation) for piece in (coarse, fine))
        if mix.by == "coefficients":
            yield coarse._replace(draws=first, other=second)
        else:
            yield coarse._replace(draws=mixed_noises(model.chain, first, second, mix.at))


def _interpolated_pieces(hosted: HostedModel, task: ImagesTask) -> Iterator[Piece]:
    body, model, way = task.body, hosted.model, task.body.interpolate
    assert way is not None
    end = task
    if way.second_class is not None:
        end = replace(task, body=body.model_copy(update={"category": way.second_class, "label": None}))
    pairs = zip(
        _pieces(model, way.first, body, _targets(hosted, task, way.first)),
        _pieces(model, way.second, body, _targets(hosted, end, way.second)),
        strict=True,
    )
    for begin, other in pairs:
        first, second = (piece.draws.scaled(body.truncation) for piece in (begin, other))
        yield begin._replace(draws=interpolated(model.chain, first, second, [way.share]))


def _pieces(model: Synthesiser, seed: int, body: ImagesBody, asked: Tensor | None) -> list[Piece]:
    """Return the images asked for block by block: whole ones where noise on conditions wants it."""
    parts = model.draws_by_block(seed, body.count, body.first, asked)
    if not model.needs_blocks:
        return [Piece(part, slice(None)) for part in parts]
    pieces, done = [], 0
    for part in parts:
        count = part.noises.shape[1]
        begin = (body.first + done) % BLOCK
        own = None if asked is None else asked[done : done + count]
        whole = model.block_draws(seed, part.block, own, begin)
        pieces.append(Piece(whole, slice(begin, begin + count)))
        done += count
    return pieces


def _targets(hosted: HostedModel, task: ImagesTask, seed: int) -> Tensor | None:
    """Return the targets that are asked for, as the shards have them; None where none are."""
    body = task.body
    label, count = _label(hosted, body), body.count
    if body.prompt is not None and not body.prompt.strip():
        raise BodyError("prompt is empty: give a text, or leave it out", "prompt")
    parts = TargetParts(
        labels=None if label is None else torch.full((count,), label),
        embedding=None if body.vector is None else torch.tensor([body.vector]).expand(count, -1),
        features=None if body.like is None else _features(hosted, body.like, task.pixels).expand(count, -1),
        captions=None if body.prompt is None else [body.prompt] * count,
    )
    return targets_for(hosted.model, seed, count, parts, body.first) if parts.given else None


def _features(hosted: HostedModel, example: bytes, most_pixels: int) -> Tensor:
    """Return the features (1, d) of the file of an example."""
    settings = hosted.checkpoint.settings
    try:
        check_shows_features(settings)
        return features_like(fitted_image(example, "like", settings, most_pixels), hosted.checkpoint)
    except InputError as error:
        raise BodyError(refusal_of(error).message, "like") from error


def _label(hosted: HostedModel, body: ImagesBody) -> int | None:
    """Return the number of the class, by its name or by its number."""
    if body.label is None:
        return class_of(body.category, hosted.checkpoint)
    if body.category is not None:
        raise BodyError("class and label name the class twice: leave one of them out", "label")
    classes = hosted.checkpoint.settings.classes
    if body.label >= classes:
        there = f"0 to {classes - 1}" if classes else "none: it was trained without"
        raise BodyError(f"label {body.label}: the model has no such class; it has {there}", "label")
    return body.label


# -- from draws to answers ------------------------------------------------------------------------


def _answers(hosted: HostedModel, drawings: dict[int, Drawing], on_error: OnError) -> dict[int, Answer | Refusal]:
    """Return the answers to ``drawings``, which share passes; where that fails, of each by itself."""
    try:
        images, passes = _draw_images(hosted, list(drawings.values()))
    except FreqganError as error:
        if len(drawings) == 1:
            return dict.fromkeys(drawings, _about_bands(error, next(iter(drawings.values())).task.body))
    except Exception as error:
        on_error(error)
        if len(drawings) == 1:
            return dict.fromkeys(drawings, BROKEN)
    else:
        first = min(drawings)
        return {
            number: _pack(hosted, drawing.task.body, own, passes if number == first else (), on_error)
            for (number, drawing), own in zip(drawings.items(), images, strict=True)
        }
    alone: dict[int, Answer | Refusal] = {}
    for number, drawing in drawings.items():
        alone |= _answers(hosted, {number: drawing}, on_error)
    return alone


def _about_bands(error: FreqganError, body: ImagesBody) -> Refusal:
    """Return the refusal of a pass: but for the bands to be drawn anew, all was checked before."""
    refusal = refusal_of(error)
    return replace(refusal, field=refusal.field or ("resample" if body.resample else None))


def _draw_images(hosted: HostedModel, drawings: Sequence[Drawing]) -> tuple[list[Tensor], tuple[PassRecord, ...]]:
    """Return the images (count, C, N, N) of every one of ``drawings``, and the passes that they took."""
    images: list[list[Tensor]] = [[] for _ in drawings]
    passes = []
    with generation_by(hosted.model, drawings[0].generation):
        for shared in _passes(drawings):
            begun_s = time.perf_counter()
            owners = [owner for owner, _ in shared]
            parts = _run(hosted.model, [drawings[owner] for owner in owners], [piece for _, piece in shared])
            for owner, part in zip(owners, parts, strict=True):
                images[owner].append(part)
            count = sum(piece.samples for _, piece in shared)
            passes.append(PassRecord(time.perf_counter() - begun_s, count, len(set(owners))))
    return [torch.cat(parts) for parts in images], tuple(passes)


def _passes(drawings: Sequence[Drawing]) -> Iterator[list[tuple[int, Piece]]]:
    """Yield passes of at most 64 images: pieces, each with the number of the drawing that it belongs to."""
    shared: list[tuple[int, Piece]] = []
    for owner, drawing in enumerate(drawings):
        for piece in drawing.pieces:
            if shared and sum(p.samples for _, p in shared) + piece.samples > MOST_IMAGES:
                yield shared
                shared = []
            shared.append((owner, piece))
    yield shared


def _run(model: Synthesiser, drawings: Sequence[Drawing], pieces: Sequence[Piece]) -> list[Tensor]:
    """Return the images (b, C, N, N) of every piece."""
    body = drawings[0].task.body
    if drawings[0].is_alone:
        return [_draw_pair(model, body, piece)[piece.rows] for piece in pieces]
    if len(pieces) == 1:
        return [part_of(model.draw(pieces[0].draws).rows(pieces[0].rows), body.part)]
    if model.needs_blocks:
        return [p for d, piece in zip(drawings, pieces, strict=True) for p in _run(model, [d], [piece])]
    together = model.draw(Draws.joined([piece.draws for piece in pieces]))
    return list(_split(together, drawings, pieces))


def _split(together: Generated, drawings: Sequence[Drawing], pieces: Sequence[Piece]) -> Iterator[Tensor]:
    begin = 0
    for drawing, piece in zip(drawings, pieces, strict=True):
        own = together.rows(slice(begin, begin + piece.samples)).rows(piece.rows)
        yield part_of(own, drawing.task.body.part)
        begin += piece.samples


def _draw_pair(model: Synthesiser, body: ImagesBody, piece: Piece) -> Tensor:
    """Return the images (b, C, N, N) of a piece and what it is mixed with."""
    assert piece.other is not None
    if body.mix is not None:
        return mixed_coefficients(model, piece.draws, piece.other, body.mix.at)
    return redraw(model, piece.draws, body.resample, piece.other)


def _pack(
    hosted: HostedModel, body: ImagesBody, images: Tensor, passes: tuple[PassRecord, ...], on_error: OnError
) -> Answer | Refusal:
    try:
        images = weigh(hosted.model, images, body.gains) if body.gains else images
        settings = hosted.model.settings
        form = form_of(body, settings)
        if form == "layers":
            return replace(pack_layers(layers(hosted.model, images)), headers=hosted.headers, passes=passes)
        kind = form if form in ("png", "webp", "npy") else ""
        files = preview_files(images, settings) if form == "preview" else image_files(images, settings, kind)
        facts = {"version": hosted.name, "model": hosted.digest, "first": body.first}
        answer = pack_files(files, form, body.first, facts)
    except InputError as error:
        return replace(refusal_of(error), field="gains")
    except Exception as error:
        on_error(error)
        return BROKEN
    return replace(answer, headers=hosted.headers, passes=passes)
