"""Draws made of other draws: ways between two of them, coarse noise of one with fine noise of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.generation.synthesiser import Draws, Generated, Synthesiser
from freqgan.model.chain import Chain

PARALLEL = 1e-4
"""Radians below which two vectors are mixed linearly: the sine of their angle is no divisor any more."""


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return vectors (..., n) on the arc from ``first`` to ``second``, whose lengths are mixed (Shoemake 1985).

    Normal vectors stay normal along the arc, as they would not along the chord.
    """
    begin, end = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (first, second))
    units = first / begin.clamp_min(1e-12), second / end.clamp_min(1e-12)
    angle = (units[0] * units[1]).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin().clamp_min(1e-12)
    arc = ((1 - share) * angle).sin() / sine * units[0] + (share * angle).sin() / sine * units[1]
    direction = torch.where(angle < PARALLEL, torch.lerp(units[0], units[1], share), arc)
    return direction * torch.lerp(begin, end, share)


def shares_of_frames(frames: int) -> list[float]:
    """Return the shares of the way that ``frames`` pictures (at least 2), both ends included, are at."""
    return [i / (frames - 1) for i in range(frames)]


def interpolated(chain: Chain, first: Draws, second: Draws, shares: Sequence[float]) -> Draws:
    """Return draws on the way from one sample to another: a sample for each of ``shares``, 0 ``first``, 1 ``second``.

    Noises and features go along arcs, embeddings along the line; labels, captions and members of ensembles, which have
    nothing between them, change in the middle.

    Args:
        chain: of the model.
        first: of one sample; or of several, for a single share.
        second: of as many.
        shares: from 0 to 1.

    """

    def along(a: Tensor, b: Tensor, dim: int, way: Callable[[Tensor, Tensor, float], Tensor] = slerp) -> Tensor:
        return torch.cat([way(a, b, share) for share in shares], dim=dim)

    def on_the_line(a: Tensor, b: Tensor, share: float) -> Tensor:
        return torch.lerp(a, b, share)

    def switched(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a if share < 0.5 else b for share in shares])

    targets = None
    if first.targets is not None and second.targets is not None:
        targets = switched(first.targets, second.targets)
        for name, way in (("embedding", on_the_line), ("features", slerp)):
            columns = chain.settings.target_layout.columns.get(name)
            if columns is not None and chain.settings.target_layout.packed:
                targets[:, columns] = along(first.targets[:, columns], second.targets[:, columns], 0, way)
    return first._replace(
        noises=along(first.noises, second.noises, 1),
        targets=targets,
        choices={band: switched(choice, second.choices[band]) for band, choice in first.choices.items()},
        rests={name: along(rest, second.rests[name], 0) for name, rest in first.rests.items()},
    )


def is_coarse(band: Band, level: int) -> bool:
    """Return whether ``band`` is part of the picture that LL of ``level`` shows, and no detail beyond it."""
    return band.level > level or (band.level == level and band.orientation == "LL")


def check_level(chain: Chain, level: int) -> None:
    """Raise InputError unless some experts make bands up to LL of ``level``, and others bands beyond it."""
    if not 1 <= level <= chain.settings.levels or not _splits(chain, level):
        fitting = [q for q in range(1, chain.settings.levels + 1) if _splits(chain, q)]
        if not fitting:
            raise InputError("--mix: the model has no experts of coarse and of fine bands, whose noises could be mixed")
        raise InputError(
            f"--at {level}: the picture up to LL of level {level} and the detail beyond it are to be of two images; "
            f"give --at {' or '.join(map(str, fitting))}"
        )


def _splits(chain: Chain, level: int) -> bool:
    """Return whether there are bands up to LL of ``level`` and bands beyond it."""
    return {is_coarse(band, level) for gan in chain.plan.gans for band in gan.bands} == {True, False}


def mixed_noises(chain: Chain, coarse: Draws, fine: Draws, level: int) -> Draws:
    """Return the noises of ``coarse`` for all up to LL of ``level`` and those of ``fine`` for the detail beyond it.

    The chain sees one picture and makes detail that fits it. The companion, and what else belongs to no band, is that
    of ``coarse``. InputError where the model has no such level.
    """
    check_level(chain, level)
    takes_fine = [not any(is_coarse(band, level) for band in gan.bands) for gan in chain.plan.gans]
    rows = torch.tensor(takes_fine, device=coarse.noises.device)[:, None, None]
    names = {gan.name for gan, taken in zip(chain.plan.gans, takes_fine, strict=True) if taken}
    return coarse._replace(
        noises=torch.where(rows, fine.noises, coarse.noises),
        choices={b: (coarse if is_coarse(b, level) else fine).choices[b] for b in coarse.choices},
        rests={name: (fine if name in names else coarse).rests[name] for name in coarse.rests},
    )


@torch.no_grad()
def mixed_coefficients(synthesiser: Synthesiser, coarse: Draws, fine: Draws, level: int) -> Tensor:
    """Return images (B, C, N, N) of the bands of ``coarse`` up to LL of ``level`` and the detail bands of ``fine``.

    Both are made for themselves, so their bands do not know of each other. InputError as of :func:`mixed_noises`.
    """
    check_level(synthesiser.chain, level)
    first, second = synthesiser.draw(coarse), synthesiser.draw(fine)
    return synthesiser.blended(_mixed_bands(first, second, level), first.conventional).images


def _mixed_bands(coarse: Generated, fine: Generated, level: int) -> dict[Band, Tensor]:
    """Return the bands of both; low bands of levels below ``level`` are left out, for they show other detail."""
    return {
        band: x
        for band, x in (
            coarse.sub_images | {b: x for b, x in fine.sub_images.items() if not is_coarse(b, level)}
        ).items()
        if not (band.orientation == "LL" and band.level < level)
    }
