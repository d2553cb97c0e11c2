"""What a place offers: devices of one type, at a price, for some of the time. Places share nothing but the run folder.

A place may be a cluster of its own. Spot machines are there for a share of the time, and are taken away now and then:
a component then goes on from its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import Field, model_validator

from cluster.planning.devices import Device, parse_nodes
from cluster.planning.simulation import HOUR_S
from freqgan.errors import InputError
from freqgan.setting_group import SettingGroup

RESTART_S = 60.0
"""From the end of a machine that is taken away to the first step of its successor: a guess."""


class PlaceSettings(SettingGroup):
    """One place, as a file of places describes it."""

    nodes: str = Field(description="Its machines, such as 4xH100,8*2xT4:spot.")
    price: float | dict[str, float] = Field(
        0.0, description="Of a device for an hour, in any currency; by type where types differ: {H100: 2.5, T4: 0.3}."
    )
    available: float = Field(1.0, gt=0, le=1, description="Share of the time for which its machines are there.")
    interruptions: float = Field(0.0, ge=0, description="How often an hour a device is taken away.")
    from_hours: float = Field(0.0, ge=0, description="Hours from now until its machines can be had.")
    until_hours: float | None = Field(None, gt=0, description="Hours from now after which they are gone.")

    @model_validator(mode="after")
    def _prices_and_hours(self) -> PlaceSettings:
        """Refuse prices below zero, prices of types that are not there, and a place that is never there."""
        types = list(dict.fromkeys(device.accelerator for device in parse_nodes(self.nodes)))
        prices = self.price if isinstance(self.price, dict) else dict.fromkeys(types, self.price)
        if below := [f"{name}: {price:g}" for name, price in prices.items() if price < 0]:
            raise InputError(f"price: {', '.join(below)}: give 0 or more for an hour of a device")
        if prices.keys() != set(types):
            raise InputError(
                f"price: there are prices for {', '.join(prices)}, and devices of type {', '.join(types)}: give each "
                "type one"
            )
        if self.until_hours is not None and self.until_hours <= self.from_hours:
            raise InputError(
                f"until_hours: {self.until_hours:g} is not after from_hours, {self.from_hours:g}: leave the place out, "
                "or give a later hour"
            )
        return self

    def price_of(self, accelerator: str) -> float:
        """Return what a device of that type costs for an hour."""
        return self.price[accelerator] if isinstance(self.price, dict) else self.price


@dataclass(frozen=True)
class Offer:
    """Devices of one type in one place.

    Attributes:
        place: its name.
        devices: all alike but for their node.
        price: of a device for an hour.
        available: share of the time for which they are there.
        interruptions: how often an hour a device is taken away.
        from_s: when they can be had from.
        until_s: when they are gone.

    """

    place: str
    devices: tuple[Device, ...]
    price: float = 0.0
    available: float = 1.0
    interruptions: float = 0.0
    from_s: float = 0.0
    until_s: float = math.inf

    @property
    def accelerator(self) -> str:
        """The type of its devices."""
        return self.devices[0].accelerator

    def elapsed_s(self, work_s: float, devices: int, redone_s: float) -> float:
        """Return the seconds by the clock for ``work_s`` seconds of ``devices`` of them, as is to be expected.

        ``redone_s``: work that is lost when one of them is taken away.
        """
        return self.running_s(work_s, devices, redone_s) / self.available

    def running_s(self, work_s: float, devices: int, redone_s: float) -> float:
        """Return the seconds for which each of them runs, and is paid for: :meth:`elapsed_s` less their absence."""
        return work_s * (1 + self.interruptions * devices * (RESTART_S + redone_s) / HOUR_S)


def offers_of(places: Mapping[str, PlaceSettings]) -> list[Offer]:
    """Return the offers of all places, one for each type of device; nodes are named after their place."""
    offers = []
    for place, given in places.items():
        until_s = math.inf if given.until_hours is None else given.until_hours * HOUR_S
        for alike in by_type(place, parse_nodes(given.nodes)):
            named = tuple(replace(device, node=f"{place}/{device.node}") for device in alike.devices)
            offers.append(
                Offer(
                    place,
                    named,
                    given.price_of(alike.accelerator),
                    given.available,
                    given.interruptions,
                    given.from_hours * HOUR_S,
                    until_s,
                )
            )
    return offers


def by_type(place: str, devices: Sequence[Device]) -> list[Offer]:
    """Return ``devices`` of a place as offers, one for each type, that cost nothing and are always there."""
    types = dict.fromkeys(device.accelerator for device in devices)
    return [Offer(place, tuple(device for device in devices if device.accelerator == kind)) for kind in types]
