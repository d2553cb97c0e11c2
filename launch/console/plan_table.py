"""``freqgan train --dry-run``: the settings as they are used, and the experts they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from cluster.run.settings import RunSettings
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.flow_expert import build_velocity_pair
from freqgan.model.plan import Gan
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE
from freqgan.training.band_gan import BandGan
from freqgan.training.companion_stage import CompanionStage, build_image_stage
from freqgan.training.distillation import Distillation
from freqgan.training.fusion import FusionStage
from launch.console.tables import result_console
from launch.console.text import experts_text
from launch.settings.load import dump_settings

LOG_COLUMNS = 140


@dataclass(frozen=True)
class PlanRow:
    """One expert, or the image stage.

    Attributes:
        order: its place in the chain, from 1.
        name: the stage's.
        kind: of the expert, gan, flow or student; of the image stage its companion, or gan if discriminators train it.
        shape: C x H x W of what it generates.
        condition: what it sees.
        network_parameters: of the generator, or of the network of a flow expert.
        discriminator_parameters: None of a flow expert.

    """

    order: int
    name: str
    kind: str
    shape: str
    condition: str
    network_parameters: int
    discriminator_parameters: int | None


def plan_rows(settings: ModelSettings) -> list[PlanRow]:
    """Return the experts in the order of the chain, and the image stage last, if it is trained.

    Builds the networks to count parameters.
    """
    chain = Chain(settings, BandStatistics({}, {}), torch.device("cpu"))
    rows = []
    for order, gan in enumerate(chain.plan.gans, start=1):
        height, width = chain.gan_size(gan)
        shape = f"{chain.gan_channels(gan)}x{height}x{width}"
        ring = [f"{band} of the pass before" for band in gan.ring_condition]
        condition = ", ".join([*map(str, gan.condition), *ring]) or "-"
        rows.append(PlanRow(order, gan.name, gan.kind, shape, condition, *_expert_counts(chain, gan)))
    shape = f"{settings.image_channels}x{settings.size[0]}x{settings.size[1]}"
    if settings.system == "fusion":
        fusion = FusionStage(chain)
        judges = [fusion.trainer.discriminator, *(part.discriminator for part in fusion.band_trainers.values())]
        counts = _count(fusion.trainer.generator), sum(map(_count, judges))
        return [PlanRow(1, FUSION_STAGE, "gan", shape, "noise: G_o, G_l and G_h, blended", *counts)]
    if settings.image_stage.enabled:
        seen = "all bands, transformed back and blended" if rows else "noise: there are no bands"
        kind = "gan" if settings.image_stage.is_adversarial else settings.image_stage.companion
        rows.append(PlanRow(len(rows) + 1, IMAGE_STAGE, kind, shape, seen, *_image_counts(chain)))
    return rows


def plan_title(settings: ModelSettings) -> str:
    """Return the title of a table of all stages."""
    if settings.system == "fusion":
        return "three generators and three discriminators, trained as one stage"
    if not settings.band_plan().gans:
        return "no bands: the generator of the image stage alone"
    stage = ", and the image stage" if settings.image_stage.enabled else "; there is no image stage"
    return f"{experts_text(settings)} in the order of the chain{stage}"


def expert_columns(rows: Sequence[PlanRow]) -> list[str]:
    """Return the headings of the columns that say which experts there are: their kind, where some are no GANs."""
    heading = "expert" if _has_flows(rows) else "GAN"
    return ["order", heading, *(["kind"] if _has_flows(rows) else []), "C x H x W", "sees"]


def parameter_columns(rows: Sequence[PlanRow]) -> list[str]:
    """Return the headings of the columns of parameters."""
    network = "network" if _has_flows(rows) else "generator"
    return [f"{network}\nparameters", *(["discriminator\nparameters"] if _has_discriminators(rows) else [])]


def expert_cells(row: PlanRow, rows: Sequence[PlanRow]) -> list[str]:
    """Return what ``row``, one of ``rows``, has in :func:`expert_columns`."""
    return [str(row.order), row.name, *([row.kind] if _has_flows(rows) else []), row.shape, row.condition]


def parameter_cells(row: PlanRow, rows: Sequence[PlanRow]) -> list[str]:
    """Return what ``row``, one of ``rows``, has in :func:`parameter_columns`."""
    discriminator = "-" if row.discriminator_parameters is None else f"{row.discriminator_parameters:,}"
    return [f"{row.network_parameters:,}", *([discriminator] if _has_discriminators(rows) else [])]


def print_plan(settings: RunSettings) -> None:
    """Print settings and plan on stdout."""
    rows = plan_rows(settings)
    print(dump_settings(settings))
    table = Table(title=plan_title(settings))
    for heading in expert_columns(rows):
        table.add_column(heading, justify="right" if heading == "order" else "left")
    for heading in parameter_columns(rows):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*expert_cells(row, rows), *parameter_cells(row, rows))
    result_console(LOG_COLUMNS).print(table)


def _has_flows(rows: Sequence[PlanRow]) -> bool:
    return any(row.kind != "gan" for row in rows)


def _has_discriminators(rows: Sequence[PlanRow]) -> bool:
    return any(row.discriminator_parameters is not None for row in rows)


def _expert_counts(chain: Chain, gan: Gan) -> tuple[int, int | None]:
    if gan.kind == "flow":
        return _count(build_velocity_pair(chain, gan).network), None
    trainer = Distillation(chain, gan).trainer if gan.kind == "student" else BandGan(chain, gan).trainer
    return _count(trainer.generator), _count(trainer.discriminator)


def _image_counts(chain: Chain) -> tuple[int, int | None]:
    """Return the parameters of what makes images and blends them, and of D_o, where it is trained."""
    stage = build_image_stage(chain)
    companion = 0 if stage.companion_trainer is None else _count(stage.companion_trainer.network)
    if isinstance(stage, CompanionStage):
        return companion, None
    return companion + _count(stage.trainer.generator), _count(stage.trainer.discriminator)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
