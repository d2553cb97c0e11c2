"""Files of places, and deadlines, as a person gives them to ``freqgan plan``."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

from cluster.planning.offers import PlaceSettings
from freqgan.errors import InputError
from launch.settings.load import validate
from launch.settings.yaml_text import parse_yaml, read_text

_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[hd])")
_UNIT_S = {"h": 3600.0, "d": 86_400.0}
LONGEST_S = 100 * 365 * 86_400.0


def load_places(source: str) -> dict[str, PlaceSettings]:
    """Return the places of a YAML file, a path or an s3:// URL, by their names.

    Raises:
        InputError: there is no such file, or it holds something else; with the place, the key and the remedy.

    """
    values = parse_yaml(read_text(source), f"{source} is no valid YAML")
    if not isinstance(values, dict) or not values:
        raise InputError(f"{source} holds no places: write lines like `berlin: {{nodes: 4xH100, price: 2.5}}`")
    places = {}
    for place, given in values.items():
        if not isinstance(given, dict):
            raise InputError(f"{source}: {place}: {given!r} is no place: write {place}: {{nodes: 4xH100, price: 2.5}}")
        try:
            places[str(place)] = validate(given, PlaceSettings)
        except InputError as error:
            raise InputError(f"{source}: {place}: {error}") from error
    return places


def seconds_until(text: str, now: datetime) -> float:
    """Return the seconds from ``now``, a time with its zone, until what ``text`` names: 36h, 3d, 2026-03-02T08:00.

    A time without a zone is that of this machine.

    Raises:
        InputError: it is none of these, or not in the future.

    """
    span = _SPAN.fullmatch(text)
    try:
        seconds = float(span["number"]) * _UNIT_S[span["unit"]] if span else _until(text, now) / timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"--done-by {text!r}: give hours (36h), days (3d), or a date with or without a time (2026-03-02T08:00)"
        ) from error
    if not 0 < seconds <= LONGEST_S or not math.isfinite(seconds):
        raise InputError(f"--done-by {text!r} is {seconds / 3600:,.1f} hours from now: give a time within 100 years")
    return seconds


def _until(text: str, now: datetime) -> timedelta:
    return datetime.fromisoformat(text).astimezone() - now
