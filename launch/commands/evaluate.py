"""``freqgan evaluate``: metrics of a run or of a folder of images as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Literal

from rich import box
from rich.table import Table

from cluster.data.image_folders import is_zip
from cluster.evaluation.evaluate import Part, evaluate_checkpoint, evaluate_files, inception_from, parts_of
from cluster.run.checkpoints import has_checkpoints
from cluster.run.free_run import find_free_run
from cluster.run.settings import RunSettings
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.metrics.catalogue import ACCURACIES, FAMILIES, HIGH_IS_GOOD
from freqgan.metrics.evaluation import Score
from freqgan.sizes import Size, size_setting
from launch.commands.generate import GRID
from launch.console.likelihood_table import print_likelihoods
from launch.console.tables import plain_console
from launch.drawing.side_by_side import SHEET, SIDE_BY_SIDE
from launch.settings.targets import writable_object

PRINTED_WIDTH = 132


def evaluate_command(
    source: str,
    data: str,
    *,
    count: int,
    seed: int,
    size: Size | None,
    json_file: str | None,
    parts: bool,
    inception: str | None,
    learned: bool,
    note: Callable[[str], None],
    at_images: int | None = None,
    generation: GenerationOptions = AS_TRAINED,
    base: str | None = None,
) -> None:
    """Print the table of ``source``, a run or a folder or zip of images, and write ``json_file`` if it is given.

    ``parts`` also measures the chain and the conventional generator by themselves (alpha = 1 and 0);
    ``inception`` is a TorchScript file with which FID and its relatives are measured as well. ``learned``: whether
    networks are taught what the images of ``data`` show, and distances measured by their features. ``generation`` is
    how flow experts generate, and ``at_images`` asks a run for its newest checkpoint of at most so many. ``base`` takes
    the place of its ``conditioning.run``.

    Raises:
        InputError: neither a run nor images, no shards, ``size`` for a run, a ``json_file`` that cannot be written,
            options of flow experts for anything else.

    """
    target = writable_object("--json", json_file) if json_file is not None else None
    extra = [inception_from(inception)] if inception is not None else []
    checkpoint, synthesiser = None, None
    zipped = is_zip(source)
    if not zipped and (has_checkpoints(source) or find_free_run(source) is not None):
        if size is not None:
            raise InputError(
                f"--size {size_setting(size)}: {source} is a run and makes images of its own size; leave --size out"
            )
        checkpoint, synthesiser = open_model(
            source, at_images=at_images, note=note, generation=generation.apply, base=base
        )
        measured_parts = _measured_parts(checkpoint.settings, note) if parts else ("image",)
        scores = evaluate_checkpoint(
            checkpoint, data, count=count, seed=seed, note=note, parts=measured_parts, extra=extra,
            synthesiser=synthesiser, learned=learned,
        )  # fmt: skip
    else:
        _refuse_options_of_runs(source, parts=parts, at_images=at_images, generation=generation, base=base)
        scores = {
            "image": evaluate_files(
                source, data, count=count, size=size, note=note, extra=extra, overviews=(GRID, SIDE_BY_SIDE, SHEET),
                learned=learned,
            )
        }  # fmt: skip
    plain_console(PRINTED_WIDTH).print(scores_table(scores))
    report = print_likelihoods(checkpoint, synthesiser, data, note=note) if checkpoint and synthesiser else {}
    if target is not None:
        target[0].write(target[1], json.dumps({**scores_json(scores), **report}, indent=1).encode())


def _measured_parts(settings: RunSettings, note: Callable[[str], None]) -> tuple[Part, ...]:
    """Return the parts that --parts asks for; ``note`` is told where there is one."""
    measured = parts_of(settings)
    if not settings.image_stage.enabled:
        note("--parts: the model has no image stage: its images are those of the chain, and are scored once")
    elif len(measured) == 1:
        note("--parts: the model has no bands: its images are those of one generator, and are scored once")
    return measured


def _refuse_options_of_runs(
    source: str, *, parts: bool, at_images: int | None, generation: GenerationOptions, base: str | None
) -> None:
    """Raise InputError for an option that ``source``, a folder or zip of images, has no use for."""
    if parts:
        raise InputError(f"--parts: {source} is no run; a folder of images has no parts; leave --parts out")
    if at_images is not None:
        raise InputError(
            f"--at-images {at_images}: {source} is no run; a folder of images has no checkpoints; leave --at-images out"
        )
    if base is not None:
        raise InputError(
            f"--conditioning-run {base}: {source} is no run; a folder of images is measured as it is; leave it out"
        )
    if generation.given:
        raise InputError(
            f"{generation.names}: {source} is no run; a folder of images is measured as it is; leave such options out"
        )


def scores_json(scores: Mapping[Part, Mapping[str, Score]]) -> dict[str, dict[str, float | None]]:
    """Return {metric: {value, floor, ratio, and the values of other parts by name}}.

    A ratio that does not exist is null.
    """
    others = [part for part in scores if part != "image"]
    return {
        name: {"value": s.value, "floor": s.floor, "ratio": s.ratio}
        | {part: scores[part][name].value for part in others}
        for name, s in scores["image"].items()
    }


def scores_table(scores: Mapping[Part, Mapping[str, Score]]) -> Table:
    """Return a table for people: one row per metric, what it sees on its first, and which way is good."""
    others = [part for part in scores if part != "image"]
    table = Table(box=box.SIMPLE)
    for heading in ("metric", "good is", "value", "floor", "ratio", *others, "sees"):
        justify: Literal["left", "right"] = "left" if heading in ("metric", "good is", "sees") else "right"
        table.add_column(heading, justify=justify, no_wrap=heading != "sees")
    sees = dict(FAMILIES)
    for name, score in scores["image"].items():
        ratio = "-" if score.ratio is None else f"{score.ratio:.2f}"
        values = [f"{scores[part][name].value:.4g}" for part in others]
        good = "high" if name in HIGH_IS_GOOD else "low"
        family, _, kind = name.partition(".")
        seen = ACCURACIES.get(kind) or sees.pop(family, "")
        table.add_row(name, good, f"{score.value:.4g}", f"{score.floor:.4g}", ratio, *values, seen)
    return table
