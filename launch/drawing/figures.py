"""The pictures of the report, made from real images and a trained model; no file is touched here."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.imaging.pictures import to_image
from cluster.imaging.shown_images import film_strips, shown_images
from freqgan.bands import HIGH_ORIENTATIONS, Band
from freqgan.generation.synthesiser import Generated, Synthesiser
from freqgan.model.chain import Chain
from freqgan.model.settings import ModelSettings
from freqgan.pixels import from_pixels
from freqgan.sizes import Size
from freqgan.transforms import parse_transform
from launch.drawing.grids import band_pixels, mosaic, tile
from launch.drawing.playing import clip_count, playing_grid

PICTURE_SIDE = 512
"""Grids of small images are enlarged to about this many pixels a side."""

GAP = 2
STRIPS = 4
"""Clips that are shown frame by frame."""


@dataclass
class Figures:
    """Pictures by file name, and ``fit``: how well fine detail follows the coarse picture, by kind of image.

    ``playing`` are the frames, by name, of those pictures that are to play: they lie below each other.
    """

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    playing: dict[str, int] = field(default_factory=dict)
    fit: dict[str, float] = field(default_factory=dict)
    bands: list[Band] = field(default_factory=list)


def sample_count(image_size: Size) -> int:
    """Return how many images a grid shows: a square number, fewer of large images."""
    columns = columns_of(image_size)
    return columns * columns


def shown_count(settings: ModelSettings) -> int:
    """Return how many images the pictures are made from: of clips, which play, fewer."""
    return sample_count(settings.size) if settings.frames == 1 else max(STRIPS, clip_count(settings))


def columns_of(image_size: Size) -> int:
    """Return the columns, and rows, of the large grids."""
    return max(3, min(8, 768 // max(image_size)))


def detail_count(image_size: Size) -> int:
    """Return how many images a grid shows where three stand side by side."""
    columns = max(2, columns_of(image_size) * 5 // 8)
    return columns * columns


def make_figures(synthesiser: Synthesiser, generated: Generated, real: Tensor | None) -> Figures:
    """Return all pictures; without levels there are none of bands.

    Args:
        synthesiser: the model.
        generated: its samples.
        real: stored (B, C, N, N) images of the training data, or None where they cannot be had.

    """
    chain, figures = synthesiser.chain, Figures()
    _add_images(figures, chain, generated, real)
    if chain.settings.levels:
        _add_bands(figures, chain, generated, real)
        _add_fit(figures, chain, generated, real)
    return figures


def shuffle_detail(chain: Chain, images: Tensor, levels: list[int]) -> Tensor:
    """Return images (B, C, N, N) whose high bands of ``levels`` are those of the image before.

    Every band keeps its own distribution; only what belongs together is torn apart.
    """
    bands = chain.transform.analyse(images)
    bands = {band: bands[band] for band in chain.transform.independent_bands()}
    mixed = {b: x.roll(1, 0) if b.level in levels and b.orientation != "LL" else x for b, x in bands.items()}
    return chain.transform.synthesise(mixed, chain.size)


def detail_fit(images: Tensor) -> float:
    """Return the correlation of the strength of Haar's HL1, LH1, HH1 with that of edges in LL1.

    It is taken over all images (B, C, N, N) and places.

    Strengths are the square roots of |x|: natural bands are uncorrelated, their magnitudes are not.
    Edges are differences of neighbours, circular as the transform is. 0 where one of them never changes.
    """
    bands = parse_transform("dwt:haar", 1).analyse(images)
    low = bands[Band(1, "LL")]
    slopes = [low.roll(1, axis) - low.roll(-1, axis) for axis in (-1, -2)]
    edges, detail = _strength(slopes), _strength([bands[Band(1, o)] for o in HIGH_ORIENTATIONS])
    correlation = torch.corrcoef(torch.stack([edges.flatten(), detail.flatten()]))[0, 1]
    return float(correlation.nan_to_num(0.0))


def _strength(parts: list[Tensor]) -> Tensor:
    """Return (B, h, w): the root of the root of the energy over channels and parts."""
    return torch.stack([part.square().sum(dim=1) for part in parts]).sum(dim=0) ** 0.25


# -- the parts -------------------------------------------------------------------------------------


def _add_images(figures: Figures, chain: Chain, generated: Generated, real: Tensor | None) -> None:
    """Write the large grids, and the smaller ones of what the final images were blended from, where they were."""
    for kind, images in (("generated", generated.images), ("real", real)):
        if images is not None:
            _add_grid(figures, chain.settings, kind, images)
    blended = {"blended": generated.images}
    parts = blended if chain.settings.levels else {}
    if chain.settings.image_stage.enabled:
        parts = {**blended, "chain": generated.frequency, "other": generated.conventional}
    for name, images in parts.items():
        figures.pictures[f"part-{name}"] = _detail_grid(images, chain.settings)


def _add_grid(figures: Figures, settings: ModelSettings, kind: str, images: Tensor) -> None:
    """Write the large grid of one kind; of clips one that plays, and a few of them frame by frame."""
    if settings.frames == 1:
        figures.pictures[f"images-{kind}"] = _grid(shown_images(images, settings))
        return
    grid = playing_grid(images, settings)
    figures.pictures[f"images-{kind}"], figures.playing[f"images-{kind}"] = grid
    strips = film_strips(images[:STRIPS], settings)
    figures.pictures[f"strips-{kind}"] = tile(strips, 1, scale=_scale(strips.shape[-1]), gap=GAP)


def _add_bands(figures: Figures, chain: Chain, generated: Generated, real: Tensor | None) -> None:
    """Write a grid per band of what the experts made (and of the real band), and one pyramid of each kind."""
    real_bands = None if real is None else chain.real(real)
    figures.bands = list(generated.sub_images)
    for kind, bands in (("real", real_bands), ("generated", generated.sub_images)):
        if bands is None:
            continue
        for band in figures.bands:
            picture = _grid(band_pixels(chain, band, bands[band]), PICTURE_SIDE // 2)
            figures.pictures[f"band-{band}-{kind}"] = picture
        scale = _scale(max(chain.settings.size))
        for time in chain.transform.times:
            name = f"mosaic-{time}-{kind}" if time else f"mosaic-{kind}"
            figures.pictures[name] = mosaic(chain, bands, 0, scale, time)
        first = real if kind == "real" and real is not None else generated.frequency
        shown = shown_images(first[:1], chain.settings)[0]
        figures.pictures[f"example-{kind}"] = to_image(shown, _scale(max(chain.settings.size), PICTURE_SIDE // 2))


def _add_fit(figures: Figures, chain: Chain, generated: Generated, real: Tensor | None) -> None:
    everywhere = list(range(1, chain.settings.levels + 1))
    shuffled = {"level-1": shuffle_detail(chain, generated.images, [1])}
    if len(everywhere) > 1:
        shuffled["all-levels"] = shuffle_detail(chain, generated.images, everywhere)
    for name, images in shuffled.items():
        figures.pictures[f"fit-{name}"] = _detail_grid(images, chain.settings)
    if real is not None:
        figures.fit["real"] = detail_fit(from_pixels(real, chain.device))
    figures.fit["generated"] = detail_fit(generated.images)
    figures.fit["shuffled"] = detail_fit(shuffled["level-1"])


def _grid(pixels: Pixels, target_side: int = PICTURE_SIDE) -> Image.Image:
    """Return a grid about ``target_side`` pixels a side."""
    columns = max(1, round(len(pixels) ** 0.5))
    return tile(pixels, columns, scale=_scale(columns * max(pixels.shape[-2:]), target_side), gap=GAP)


def _detail_grid(images: Tensor, settings: ModelSettings) -> Image.Image:
    count = detail_count((images.shape[-2], images.shape[-1]))
    return _grid(shown_images(images[:count], settings), PICTURE_SIDE * 2 // 3)


def _scale(side: int, target_side: int = PICTURE_SIDE) -> int:
    """Return by how much to repeat the pixels of a picture ``side`` wide."""
    return max(1, target_side // side)
