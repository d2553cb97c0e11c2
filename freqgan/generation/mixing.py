"""Draws made of other draws: ways between two of them, coarse noise of one with fine noise of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from freqgan.bands import TIME_LOW, Band
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


Place = int | str
"""Where two images are mixed: the level up to whose LL the picture is one's; of clips TIME, with all changes the
other's."""

TIME = "time"


def is_coarse(band: Band, place: Place) -> bool:
    """Return whether ``band`` is part of the picture that LL of a level shows, and no detail beyond it.

    For TIME: whether it is of the averages of frames, and of no changes.
    """
    if isinstance(place, str):
        return band.time == TIME_LOW
    return band.level > place or (band.level == place and band.orientation == "LL")


def check_place(chain: Chain, place: Place) -> None:
    """Raise InputError unless some experts make bands on one side of ``place``, and others bands beyond it."""
    levels: list[Place] = [*range(1, chain.settings.levels + 1)]
    if (place in levels or place == TIME) and _splits(chain, place):
        return
    fitting = [there for there in (*levels, TIME) if _splits(chain, there)]
    if not fitting:
        raise InputError("--mix: the model has no experts of coarse and of fine bands, whose noises could be mixed")
    raise InputError(
        f"--at {place}: the picture up to LL of that level and the detail beyond it are to be of two images; "
        f"give --at {' or '.join(map(str, fitting))}"
    )


def _splits(chain: Chain, place: Place) -> bool:
    """Return whether there are bands on both sides of ``place``."""
    return {is_coarse(band, place) for gan in chain.plan.gans for band in gan.bands} == {True, False}


def mixed_noises(chain: Chain, coarse: Draws, fine: Draws, place: Place) -> Draws:
    """Return the noises of ``coarse`` for all up to LL of a level and those of ``fine`` for the detail beyond it.

    For TIME, of clips, those of ``coarse`` for what is in them and those of ``fine`` for how it moves.

    The chain sees one picture and makes detail that fits it. The companion, and what else belongs to no band, is that
    of ``coarse``. InputError where the model has no such place.
    """
    check_place(chain, place)
    takes_fine = [not any(is_coarse(band, place) for band in gan.bands) for gan in chain.plan.gans]
    rows = torch.tensor(takes_fine, device=coarse.noises.device)[:, None, None]
    names = {gan.name for gan, taken in zip(chain.plan.gans, takes_fine, strict=True) if taken}
    return coarse._replace(
        noises=torch.where(rows, fine.noises, coarse.noises),
        choices={b: (coarse if is_coarse(b, place) else fine).choices[b] for b in coarse.choices},
        rests={name: (fine if name in names else coarse).rests[name] for name in coarse.rests},
    )


@torch.no_grad()
def mixed_coefficients(synthesiser: Synthesiser, coarse: Draws, fine: Draws, place: Place) -> Tensor:
    """Return images (B, C, N, N) of the bands of ``coarse`` up to ``place`` and of those of ``fine`` beyond it.

    Both are made for themselves, so their bands do not know of each other. InputError as of :func:`mixed_noises`.
    """
    check_place(synthesiser.chain, place)
    first, second = synthesiser.draw(coarse), synthesiser.draw(fine)
    return synthesiser.blended(_mixed_bands(first, second, place), first.conventional).images


def _mixed_bands(coarse: Generated, fine: Generated, place: Place) -> dict[Band, Tensor]:
    """Return the bands of both; low bands of levels below ``place`` are left out, for they show other detail."""
    mixed = coarse.sub_images | {b: x for b, x in fine.sub_images.items() if not is_coarse(b, place)}
    if isinstance(place, str):
        return mixed
    return {band: x for band, x in mixed.items() if not (band.orientation == "LL" and band.level < place)}
