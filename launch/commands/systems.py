"""The systems of a comparison: their widths at equal cost, and how many images each trains, kept in ``costs.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.planning.training_rate import training_rates
from cluster.run.settings import RunSettings
from freqgan.costing.baselines import VARIANTS, at_cost, variant
from freqgan.costing.operator_count import training_cost
from freqgan.errors import InputError
from freqgan.model.expert_settings import GenerationSettings
from freqgan.setting_group import AS_STORED
from launch.settings.load import load_settings

COSTS = "costs.json"
SHARED = ("image_size", "channels", "bit_depth")
"""Settings that systems must have in common: they say which images are made."""


@dataclass(frozen=True)
class System:
    """One system at equal cost: its settings without seed and run, and multiply-accumulates of training per image."""

    settings: RunSettings
    cost: float


def parse_systems(settings: RunSettings, text: str) -> dict[str, RunSettings]:
    """Return the systems that ``text`` names, as they are before they are brought to equal cost.

    Args:
        settings: of the system called bands.
        text: names of :data:`freqgan.costing.baselines.VARIANTS`, and ``NAME=SETTINGS`` for others, whose settings
            stand in a file or are a preset; with commas between them.

    Raises:
        InputError: nothing is named, a system is not known, or its settings cannot be compared.

    """
    systems: dict[str, RunSettings] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, is_own, source = (part.strip() for part in entry.partition("="))
        systems[name] = _own_system(settings, name, source) if is_own else variant(settings, name)
    if not systems:
        raise InputError(f"--presets {text!r} names no system: give some of {', '.join(VARIANTS)}")
    return systems


def _own_system(settings: RunSettings, name: str, source: str) -> RunSettings:
    """Return the settings that ``source`` names, on the images of ``settings``."""
    if name in VARIANTS or not name.replace("-", "").isalnum():
        raise InputError(
            f"--presets {name}={source}: a system with settings of its own needs a name of letters, digits and hyphens "
            f"that is none of {', '.join(VARIANTS)}"
        )
    own = load_settings(source, [f"data={settings.data}", "run=compared"])
    for key in SHARED:
        if (theirs := getattr(own, key)) != (ours := getattr(settings, key)):
            raise InputError(
                f"--presets {name}={source}: {key} is {theirs} there and {ours} in the settings that are compared; use "
                "the same"
            )
    images = settings.images // own.batch * own.batch
    ingest = settings.ingest.model_dump()
    changes = {"executor": "inline", "ingest": ingest, "images": images, "max_steps": settings.max_steps}
    return type(own).model_validate(own.model_dump() | changes)


def equal_systems(
    settings: RunSettings,
    systems: Mapping[str, RunSettings],
    *,
    out: Path,
    held_out: str,
    minutes: float | None,
    note: Callable[[str], None],
) -> dict[str, System]:
    """Return every system of ``systems`` at the multiply-accumulates per image of ``settings``.

    What is in ``out``/costs.json is taken from there: finding widths takes half a minute each, and speeds that are
    measured anew are others.

    Args:
        settings: of the system called bands.
        systems: by name, as :func:`parse_systems` returns them.
        out: folder of the comparison.
        held_out: shards of real images that it measures against.
        minutes: of one process, which give each system the images that it trains in them; None for those of
            ``settings``.
        note: hears what is measured, and the images of each system.

    Raises:
        InputError: ``out`` holds another comparison, or a system trains no batch in ``minutes``.

    """
    path = out / COSTS
    known = json.loads(path.read_text()) if path.exists() else {}
    compared: dict[str, Any] = {"settings": _identity(settings), "held_out": held_out}
    _check_same(out, known, compared, minutes)
    entries: dict[str, dict[str, Any]] = known.get("systems", {})
    target = sum(training_cost(settings).values())
    for name, system in systems.items():
        given = _identity(system)
        if name not in entries:
            scaled, cost = (system, target) if name == "bands" else at_cost(system, target)
            note(f"{name}: {cost / 1e6:.1f} million multiply-accumulates per image, {cost / target:.3f} of bands")
            entries[name] = {"given": given, "settings": scaled.model_dump(mode="json"), "cost": cost}
        if entries[name].get("given", given) != given:
            raise InputError(
                f"{out} holds {name} with other settings; name another --out, or give the system a new name"
            )
    if minutes is not None:
        compared["minutes"] = minutes
        _add_images(entries, list(systems), minutes, note)
    path.write_text(json.dumps(compared | {"systems": entries}, indent=1))
    return {name: System(_settings_of(entries[name]), float(entries[name]["cost"])) for name in systems}


def _identity(settings: RunSettings) -> dict[str, Any]:
    identity = settings.identity()
    if settings.generation != GenerationSettings():  # training does not depend on it, scores do
        identity["generation"] = settings.generation.model_dump(mode="json")
    return identity


def _check_same(out: Path, known: Mapping[str, Any], compared: Mapping[str, Any], minutes: float | None) -> None:
    """Raise InputError where ``known``, of an earlier start, is of another comparison."""
    if not known:
        return
    if known["settings"] != compared["settings"]:
        raise InputError(
            f"{out} holds a comparison of other settings; name another --out, or give the settings of before"
        )
    if known["held_out"] != compared["held_out"]:
        raise InputError(
            f"--data {compared['held_out']}: {out} was measured against {known['held_out']}; name another --out, or "
            "give the same shards"
        )
    if known.get("minutes") != minutes:
        texts = ["equal images" if span is None else f"{span:g} minutes" for span in (known.get("minutes"), minutes)]
        raise InputError(
            f"{out} holds a comparison of systems at {texts[0]}, and this is one at {texts[1]}; name another --out, or "
            "give the --minutes of before"
        )


def _add_images(
    entries: Mapping[str, dict[str, Any]], names: Sequence[str], minutes: float, note: Callable[[str], None]
) -> None:
    """Give each entry the images of whole batches that its system trains in ``minutes``; measure what is not known."""
    unknown = {name: _settings_of(entries[name]) for name in names if "images_per_s" not in entries[name]}
    if unknown:
        for name, rate in training_rates(unknown, note).items():
            entries[name]["images_per_s"] = rate
    for name in names:
        rate, batch = entries[name]["images_per_s"], entries[name]["settings"]["batch"]
        images = int(rate * 60 * minutes) // batch * batch
        if not images:
            raise InputError(
                f"--minutes {minutes:g}: {name} trains {rate * 60 * minutes:.1f} images in it, at {_rate_text(rate)} "
                f"images/s, and a batch has {batch}; give more minutes"
            )
        entries[name]["settings"]["images"] = images
        note(f"{name}: {_rate_text(rate)} images/s, {images:,} images in {minutes:g} minutes")


def _settings_of(entry: Mapping[str, Any]) -> RunSettings:
    return RunSettings.model_validate(entry["settings"], context=AS_STORED)


def _rate_text(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
