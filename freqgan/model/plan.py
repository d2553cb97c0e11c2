"""Which GANs there are, in which order they run, and what each is conditioned on.

The number of GANs is ``sum_q (S_q + W_q)``: ``S_q`` low-frequency and ``W_q`` high-frequency GANs at
level q, by default 1 and 3, so 4L in all. Several GANs on one band are members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal, TypeVar

from pydantic import Field

from freqgan.bands import Band, Orientation, parse_band
from freqgan.errors import InputError, nearest
from freqgan.layouts import BandLayout
from freqgan.model.expert_settings import DEFAULT, HIGH, LOW, ExpertKind
from freqgan.setting_group import SettingGroup

Value = TypeVar("Value")


class PlanSettings(SettingGroup):
    """The choice of GANs and of the edges between them."""

    bands: Literal["all", "none"] | list[str] = Field(
        "all",
        description="Bands that get a GAN; others are zero, or follow from the coarser level. none: only the "
        "conventional GAN.",
    )
    low_gans: dict[int, int] = Field(
        {}, description="S_q: GANs for the low band of level q; 1 where not given. Several form an ensemble."
    )
    high_gans: dict[int, int] = Field(
        {},
        description="W_q: GANs for the high bands of level q; one per band where not given. plan.high_gans.1=1: "
        "one network for HL, LH and HH of level 1. plan.high_gans.1=6: ensembles of two "
        "(noise.generation=haar where hurwitz has too few noises).",
    )
    condition: Literal["all", "none"] | dict[str, list[str]] = Field(
        "all",
        description="Which bands a GAN sees: all earlier ones, none, or a list per GAN (GANs that are not listed "
        "see all).",
    )
    cycles: int = Field(
        1,
        ge=1,
        le=8,
        description="Passes through the chain. From the second on it is a ring: a GAN also sees later bands of "
        "the pass before.",
    )
    strict_nesting: bool = Field(
        False,
        description="Train no refiners: LL_q is exactly the synthesis of level q+1, and the transform of a "
        "generated image returns exactly the generated bands (where its side is a multiple of "
        "2^levels; other sides are padded and cropped).",
    )


@dataclass(frozen=True)
class Gan:
    """One expert: a generator with its discriminator, or, of the kinds flow and student, a velocity field.

    ``condition`` lists the bands it sees from this pass (earlier in the chain), ``ring_condition``
    those it sees from the pass before (later in the chain; only with ``cycles`` > 1). ``time`` is the temporal band of
    a clip that its bands are part of.
    """

    name: str
    level: int
    orientations: tuple[Orientation, ...]
    member: int
    condition: tuple[Band, ...] = ()
    ring_condition: tuple[Band, ...] = ()
    kind: ExpertKind = "gan"
    time: str = ""

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands it generates, stacked by channel in this order."""
        return tuple(Band(self.level, orientation, self.time) for orientation in self.orientations)

    @property
    def seen(self) -> tuple[Band, ...]:
        """All bands it sees, of this pass and of the one before."""
        return self.condition + self.ring_condition

    @property
    def is_low(self) -> bool:
        """Whether it generates the low band of its level."""
        return self.orientations == ("LL",)

    @property
    def has_velocity(self) -> bool:
        """Whether its network is a velocity field: that of a flow expert, or of the student of one."""
        return self.kind != "gan"


@dataclass(frozen=True)
class BandPlan:
    """The GANs in the order of the chain: level L down to 1; within a level LL, HL, LH, HH.

    Of clips the temporal bands follow each other, tL first, then the changes from slow to fast.
    """

    levels: int
    gans: tuple[Gan, ...]
    cycles: int = 1

    def gan(self, name: str) -> Gan:
        """Return the GAN called ``name``; InputError with the nearest names when there is none."""
        for gan in self.gans:
            if gan.name == name:
                return gan
        names = [gan.name for gan in self.gans]
        raise InputError(f"no GAN is called {name!r}{nearest(name, names)}; the plan has {', '.join(names)}")

    def index(self, gan: Gan) -> int:
        """Return the place of ``gan`` in the chain, which is also the number of its noise."""
        return self.gans.index(gan)

    def members(self, band: Band) -> list[Gan]:
        """Return the GANs that generate ``band``: one, or the members of an ensemble."""
        return [gan for gan in self.gans if band in gan.bands]

    def sources(self, gan: Gan, *, ring: bool = False) -> list[Gan]:
        """Return the GANs whose outputs ``gan`` needs from this pass, or (``ring``) from the pass before."""
        bands = set(gan.ring_condition if ring else gan.condition)
        return [other for other in self.gans if bands.intersection(other.bands)]

    def has_low(self, gan: Gan, level: int) -> bool:
        """Return whether ``gan`` can know LL of ``level``: it sees it, or can derive it from coarser bands it sees."""
        if level > self.levels:
            return False
        low = Band(level, "LL", gan.time)
        if low in gan.seen:
            return True
        return not self.members(low) and self.has_low(gan, level + 1)

    def has_base(self, gan: Gan) -> bool:
        """Return whether ``gan`` starts from a low band: U_q for a refiner, LL_q for high bands."""
        return self.has_low(gan, gan.level + 1 if gan.is_low else gan.level)


def build_plan(layout: BandLayout, settings: PlanSettings, experts: Mapping[str, ExpertKind] | None = None) -> BandPlan:
    """Return the plan of ``settings`` over the bands of ``layout``; InputError names the key and the remedy.

    ``experts`` are kinds by the name of an expert or of a band, or by ``low``, ``high`` or ``default``.
    """
    levels = layout.levels
    if settings.bands == "none":
        return BandPlan(levels, ())
    known = layout.bands()
    chosen = _chosen_bands(known, settings)
    _check_levels("plan.low_gans", settings.low_gans, levels)
    _check_levels("plan.high_gans", settings.high_gans, levels)
    gans: list[Gan] = []
    for time, level in product(layout.times, range(levels, 0, -1) if levels else [0]):
        gans += _low_gans(time, level, levels, settings, chosen)
        high = layout.orientations(level)[1:]
        gans += _high_gans(time, level, high, settings.high_gans.get(level, len(high)), chosen)
    first = Band(levels, "LL", layout.times[0])
    if not gans or first not in gans[0].bands:
        raise InputError(f"plan: {first} has no GAN, and the chain starts there; add it to plan.bands or plan.low_gans")
    _check_times(layout, gans)
    plan = BandPlan(levels, _with_conditions(gans, settings), settings.cycles)
    return replace(plan, gans=_with_kinds(plan, experts or {}))


def _check_times(layout: BandLayout, gans: Sequence[Gan]) -> None:
    """Raise InputError where a temporal band has experts, and none for its coarsest low band."""
    made = {band for gan in gans for band in gan.bands}
    for time in layout.times:
        low = Band(layout.levels, "LL", time)
        if low not in made and any(band.time == time for band in made):
            raise InputError(
                f"plan: {low} has no GAN, and all other bands of {time} follow from it; add it to plan.bands, or leave "
                f"out all of {time}: its changes are then zero"
            )


def _chosen_bands(known: list[Band], settings: PlanSettings) -> set[Band]:
    if settings.bands == "all":
        return set(known)
    return {_known_band("plan.bands", name, known) for name in settings.bands}


def _known_band(setting: str, name: str, known: list[Band]) -> Band:
    names = [str(band) for band in known]
    if name not in names:
        raise InputError(f"{setting}: no band is called {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    return parse_band(name)


def _check_levels(setting: str, counts: Mapping[int, int], levels: int) -> None:
    for level, count in counts.items():
        if not 1 <= level <= levels:
            raise InputError(f"{setting}: level {level} does not exist; levels are 1 (finest) to {levels}")
        if not 0 <= count <= 64:
            raise InputError(f"{setting}: {count} GANs at level {level}; give a number from 0 to 64")


def _low_gans(time: str, level: int, levels: int, settings: PlanSettings, bands: set[Band]) -> list[Gan]:
    if Band(level, "LL", time) not in bands or (settings.strict_nesting and level < levels):
        return []
    return [_gan(time, level, ("LL",), member) for member in range(settings.low_gans.get(level, 1))]


def _high_gans(time: str, level: int, high: tuple[Orientation, ...], count: int, bands: set[Band]) -> list[Gan]:
    """Return ``count`` GANs for the bands ``high``.

    Neighbours share one where there are more bands than GANs; else bands get ensembles in turn.

    Of quadrants: 1: one GAN for the three bands; 2: HL and LH together, HH apart; from 3 on HL, LH, HH in turn. Only
    sub-images of one size can be stacked, which those of one level are.
    """
    groups: list[tuple[Orientation, ...]]
    if count < len(high):
        ends = [-(-len(high) * i // count) for i in range(count + 1)] if count else []
        groups = [high[first:end] for first, end in pairwise(ends)]
    else:
        groups = [(o,) for i, o in enumerate(high) for _ in range(i, count, len(high))]
    groups = [tuple(o for o in group if Band(level, o, time) in bands) for group in groups]
    return [_gan(time, level, group, groups[:i].count(group)) for i, group in enumerate(groups) if group]


def _gan(time: str, level: int, orientations: tuple[Orientation, ...], member: int) -> Gan:
    prefix, suffix = f"{time}." if time else "", f".{member + 1}" if member else ""
    return Gan(f"{prefix}{'-'.join(orientations)}{level}{suffix}", level, orientations, member, time=time)


def _with_conditions(gans: list[Gan], settings: PlanSettings) -> tuple[Gan, ...]:
    order = list(dict.fromkeys(band for gan in gans for band in gan.bands))
    lists = settings.condition if isinstance(settings.condition, dict) else {}
    names = [gan.name for gan in gans]
    for name in lists:
        if name not in names:
            near = nearest(name, names)
            raise InputError(f"plan.condition: no GAN is called {name!r}{near}; there are {', '.join(names)}")
    return tuple(_connect(gan, order, settings, lists.get(gan.name)) for gan in gans)


def _connect(gan: Gan, order: list[Band], settings: PlanSettings, only: list[str] | None) -> Gan:
    first = order.index(gan.bands[0])
    earlier = order[:first]
    later = [band for band in order[first:] if band not in gan.bands] if settings.cycles > 1 else []
    if only is not None:
        seen = {_known_band(f"plan.condition.{gan.name}", name, earlier + later) for name in only}
    else:
        seen = set() if settings.condition == "none" else {b for b in (*earlier, *later) if _in_sight(gan, b)}
    return replace(
        gan,
        condition=tuple(band for band in earlier if band in seen),
        ring_condition=tuple(band for band in later if band in seen),
    )


def _in_sight(gan: Gan, band: Band) -> bool:
    """Return whether ``gan`` sees ``band`` where nothing else is asked: of other temporal bands, no finer levels."""
    return band.time == gan.time or band.level >= gan.level


def choice_for(gan: Gan, choices: Mapping[str, Value], setting: str) -> Value | None:
    """Return what ``choices`` have for ``gan``, the closest one.

    That is by its name, its bands, its temporal band, ``low`` or ``high``, ``default``.

    None where there is nothing. InputError where two bands of the expert have different choices; ``setting`` names
    them in messages.
    """
    if gan.name in choices:
        return choices[gan.name]
    by_band = {str(band): choices[str(band)] for band in gan.bands if str(band) in choices}
    if by_band:
        if len(set(by_band.values())) > 1 or len(by_band) < len(gan.bands):
            chosen = ", ".join(f"{name}={value}" for name, value in by_band.items())
            raise InputError(
                f"{setting}: {gan.name} generates {', '.join(map(str, gan.bands))} together, and only some have a "
                f"choice, or different ones ({chosen}): choose for {setting}.{gan.name}, or give every band an expert "
                f"of its own with plan.high_gans.{gan.level}={len(gan.bands)}"
            )
        return next(iter(by_band.values()))
    if gan.time and gan.time in choices:
        return choices[gan.time]
    return choices.get(LOW if gan.is_low else HIGH, choices.get(DEFAULT))


def check_choices(plan: BandPlan, choices: Mapping[str, object], setting: str) -> None:
    """Raise InputError for a key of ``choices`` that is no expert, no (temporal) band, nor low, high or default."""
    names = [*dict.fromkeys(name for gan in plan.gans for name in (gan.name, *map(str, gan.bands), gan.time) if name)]
    for key in choices:
        if key not in (DEFAULT, LOW, HIGH, *names):
            near = nearest(key, [*names, DEFAULT, LOW, HIGH])
            raise InputError(
                f"{setting}: no expert or band is called {key!r}{near}; there are {', '.join(names)}, and {DEFAULT}, "
                f"{LOW} and {HIGH} for several at once"
            )


def _with_kinds(plan: BandPlan, experts: Mapping[str, ExpertKind]) -> tuple[Gan, ...]:
    check_choices(plan, experts, "experts")
    gans = tuple(replace(gan, kind=choice_for(gan, experts, "experts") or "gan") for gan in plan.gans)
    flows = [gan for gan in gans if gan.has_velocity]
    if flows and plan.cycles > 1:
        raise InputError(
            f"plan.cycles: {plan.cycles} passes with experts of the kind {flows[0].kind} ({flows[0].name}): one that "
            "sees later bands is part of no order, and the chain rule, which lets it train apart, holds in an order "
            "alone; set plan.cycles=1"
        )
    for gan in flows:
        if gan.is_low and gan.level < plan.levels and plan.has_base(gan):
            raise InputError(
                f"experts: {gan.name} is a flow expert, and refines a low band that the bands before it give exactly: "
                "there is nothing left to learn. Set plan.strict_nesting=true, which leaves refiners out, or "
                f"experts.{gan.name}=gan"
            )
    return gans
