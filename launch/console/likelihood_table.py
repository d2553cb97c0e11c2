"""Likelihoods of flow experts as a table, and as JSON: a part of ``freqgan evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table

from cluster.evaluation.likelihood import ExpertLikelihood, LikelihoodReport, Mean, measure_likelihoods
from cluster.run.checkpoint import Checkpoint
from freqgan.errors import InputError
from freqgan.generation.likelihood import why_no_likelihood
from freqgan.generation.synthesiser import Synthesiser
from launch.console.tables import plain_console

WIDTH = 132


def print_likelihoods(
    checkpoint: Checkpoint, synthesiser: Synthesiser, data: str, *, note: Callable[[str], None]
) -> dict[str, Any]:
    """Print how likely images of ``data`` are under the flow experts of a model, and return it under one JSON key.

    A model of GANs alone has nothing to print; one whose likelihoods cannot be computed gets a line that says why.
    """
    if not synthesiser.flows:
        return {}
    if why := why_no_likelihood(synthesiser):
        print(f"no likelihoods: {why}")
        return {}
    try:
        report = measure_likelihoods(checkpoint, synthesiser, data, note=note)
    except InputError as error:
        print(f"no likelihoods: {error}")
        return {}
    plain_console(WIDTH).print(likelihood_table(report))
    print(_explanation(report, synthesiser))
    return {"likelihood": likelihood_json(report)}


def likelihood_table(report: LikelihoodReport) -> Table:
    """Return a table for people: one row per expert, the last for all of an image."""
    table = Table(box=box.SIMPLE)
    for heading in ("band", "numbers", "nats per image", "bits per number", "of training images", "difference"):
        table.add_column(heading, justify="left" if heading == "band" else "right", no_wrap=True)
    for row in [*report.experts, *([] if report.total is None else [report.total])]:
        training = row.training_bits
        cells = ("-", "-") if training is None else (_text(training, 3), _text(row.bits.less(training), 3))
        table.add_row(row.name, f"{row.dimensions:,}", _text(row.nats, 1), _text(row.bits, 3), *cells)
    return table


def _explanation(report: LikelihoodReport, synthesiser: Synthesiser) -> str:
    """Return what the table is of."""
    lines = f"Log-likelihoods of {report.images} held-out and {report.training_images} training images, +- their "
    lines += "standard errors; real conditions. A difference above 0 is what the model has memorised."
    if report.total is None:
        return lines + " Not all bands are made by flow experts, so there is no total."
    whole = "the chain's bits per dimension of pixels" if synthesiser.image else "bits per dimension of pixels"
    return lines + f" The total is {whole}."


def likelihood_json(report: LikelihoodReport) -> dict[str, Any]:
    """Return the report as {images, training_images, and by band: dimensions and means with their errors}."""
    rows = [*report.experts, *([] if report.total is None else [report.total])]
    return {
        "images": report.images,
        "training_images": report.training_images,
        "bands": {row.name: _row_json(row) for row in rows},
    }


def _row_json(row: ExpertLikelihood) -> dict[str, Any]:
    training = None if row.training_bits is None else row.training_bits._asdict()
    return {
        "dimensions": row.dimensions,
        "nats": row.nats._asdict(),
        "bits_per_dimension": row.bits._asdict(),
        "bits_per_dimension_training": training,
    }


def _text(mean: Mean, digits: int) -> str:
    return f"{mean.value:,.{digits}f} +- {mean.error:.{digits}f}"
