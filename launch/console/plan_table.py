"""``freqgan train --dry-run``: the settings as they are used, and the GANs they make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from cluster.run.settings import RunSettings
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.training.band_gan import BandGan
from freqgan.training.image_stage import ImageStage
from launch.console.tables import result_console
from launch.settings.load import dump_settings

LOG_COLUMNS = 140


@dataclass(frozen=True)
class PlanRow:
    """One GAN, or the image stage: ``shape`` is C x H x W of what it generates."""

    order: int
    name: str
    shape: str
    condition: str
    generator_parameters: int
    discriminator_parameters: int


def plan_rows(settings: ModelSettings) -> list[PlanRow]:
    """Return the GANs in the order of the chain, and the image stage last. Builds the networks to count parameters."""
    chain = Chain(settings, BandStatistics({}, {}), torch.device("cpu"))
    rows = []
    for order, gan in enumerate(chain.plan.gans, start=1):
        side = chain.gan_side(gan)
        shape = f"{settings.channels * len(gan.bands)}x{side}x{side}"
        ring = [f"{band} of the pass before" for band in gan.ring_condition]
        condition = ", ".join([*map(str, gan.condition), *ring]) or "-"
        trainer = BandGan(chain, gan).trainer
        rows.append(PlanRow(order, gan.name, shape, condition, *_counts(trainer.generator, trainer.discriminator)))
    trainer = ImageStage(chain).trainer
    shape = f"{settings.channels}x{settings.image_size}x{settings.image_size}"
    seen = "all bands, transformed back and blended"
    return [
        *rows,
        PlanRow(len(rows) + 1, IMAGE_STAGE, shape, seen, *_counts(trainer.generator, trainer.discriminator)),
    ]


def print_plan(settings: RunSettings) -> None:
    """Print settings and plan on stdout."""
    print(dump_settings(settings))
    table = Table(title=f"{len(settings.band_plan().gans)} GANs in the order of the chain, and the image stage")
    for heading in ("order", "GAN", "C x H x W", "sees"):
        table.add_column(heading, justify="right" if heading == "order" else "left")
    for heading in ("generator", "discriminator"):
        table.add_column(f"{heading}\nparameters", justify="right")
    for row in plan_rows(settings):
        counts = f"{row.generator_parameters:,}", f"{row.discriminator_parameters:,}"
        table.add_row(str(row.order), row.name, row.shape, row.condition, *counts)
    result_console(LOG_COLUMNS).print(table)


def _counts(generator: nn.Module, discriminator: nn.Module) -> tuple[int, int]:
    first, second = (sum(p.numel() for p in network.parameters()) for network in (generator, discriminator))
    return first, second
