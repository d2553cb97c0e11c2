"""Mixing: bands of mixed noises fit together as those of one noise do, and finished bands of two images do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cluster.run.data_source import open_source
from cluster.run.trained_model import open_model
from freqgan.generation.mixing import mixed_coefficients, mixed_noises
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.metrics.bands import cross_band_distance, packet_distances
from freqgan.metrics.patches import sliced_wasserstein
from freqgan.pixels import to_pixels
from launch.drawing.grids import tile

BLOCKS = 12
OTHER_SEED = 1


class MixRow(NamedTuple):
    """Distances from real images."""

    what: str
    cross_band: float
    patches: float
    packets: float


def run_mixing(folder: Path, run: str, level: int, say: Callable[[str], None], blocks: int = BLOCKS) -> list[MixRow]:
    """Distances of a model's images, of mixed noises, and of mixed coefficients; pictures of each in ``folder``."""
    checkpoint, model = open_model(run, note=say)
    source = open_source(checkpoint.settings)
    count = min(blocks * BLOCK, source.index.sample_count // 2)
    with source.ingest() as ingest:
        batch = ingest.batch(0, 2 * count)
    real = torch.from_numpy(batch.images.copy())
    kinds: dict[str, Callable[[int], Tensor]] = {
        "one noise": lambda block: model.draw(model.block_draws(0, block)).images,
        "mixed noise": lambda block: _mixed(model, block, level),
        "mixed coefficients": lambda block: mixed_coefficients(
            model, model.block_draws(0, block), model.block_draws(OTHER_SEED, block), level
        ),
    }
    rows = [_row("other real images", real[:count], real[count:])]
    for what, images in kinds.items():
        made = to_pixels(torch.cat([images(block) for block in range(-(-count // BLOCK))])[:count])
        tile(made[:24].numpy(), 8, scale=3, gap=3).save(folder / f"{what.replace(' ', '-')}.png")
        rows.append(_row(what, real[:count], made))
        say(f"{what}: cross-band distance {rows[-1].cross_band:.1f}")
    return rows


def _mixed(model: Synthesiser, block: int, level: int) -> Tensor:
    coarse, fine = model.block_draws(0, block), model.block_draws(OTHER_SEED, block)
    return model.draw(mixed_noises(model.chain, coarse, fine._replace(targets=coarse.targets), level)).images


def _row(what: str, real: Tensor, made: Tensor) -> MixRow:
    patches, packets = sliced_wasserstein(real, made), packet_distances(real, made)
    return MixRow(what, cross_band_distance(real, made), patches[""], packets[""])


def rows_as_text(rows: list[MixRow]) -> list[str]:
    """Lines of a table."""
    head = f"{'':20} {'cross-band':>12} {'patches':>12} {'packets':>12}"
    return [head, *(f"{r.what:20} {r.cross_band:12.2f} {r.patches:12.2f} {r.packets:12.3f}" for r in rows)]
