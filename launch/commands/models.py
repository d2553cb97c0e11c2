"""``freqgan models``: the versions of a model, and which of them is in use."""

from __future__ import annotations

import json
import time

from rich import box
from rich.table import Table

from cluster.run.model_registry import ModelRegistry, is_sound
from freqgan.errors import InputError
from launch.console.tables import result_console

WIDTH = 120


def list_models(url: str) -> None:
    """Print a table of versions; the one in use is marked."""
    store = ModelRegistry(url)
    numbers, current = store.numbers(), store.current()
    if not numbers:
        fault = "holds no version of a model" if store.folder.is_there() else "is not there"
        raise InputError(f"{store.folder.url} {fault}: name <models>/<name> of a policy")
    table = Table(box=box.SIMPLE)
    for heading in ("version", "in use", "finished", "begins with", "images", "new", "gate", "files"):
        table.add_column(heading, justify="right" if heading in ("version", "images", "new") else "left")
    for number in numbers:
        version = store.version(number)
        record = version.record
        used = "now" if current and current.number == number else ""
        used = used or ("before" if current and number in current.stack else "")
        table.add_row(
            str(number), used, _when(record.finished_at_s), str(record.begins_with or "-"),
            f"{record.data.images:,}", f"{record.data.new_images:,}",
            "holds" if record.verdict.holds else "does not hold", "sound" if is_sound(version) else "DAMAGED",
        )  # fmt: skip
    result_console(WIDTH).print(table)


def show_model(url: str, number: int | None) -> None:
    """Print the record of a version, the one in use if ``number`` is None, and every time it was put in use."""
    store = ModelRegistry(url)
    current = store.current()
    if number is None:
        if current is None:
            fault = "has no version in use: name a number" if store.folder.is_there() else "is not there"
            raise InputError(f"{store.folder.url} {fault}")
        number = current.number
    version = store.version(number)
    moves = [move.values() for move in current.log if move.version == number] if current else []
    print(json.dumps(version.record.values() | {"url": version.folder.url, "moves": moves}, indent=1))


def promote_model(url: str, number: int) -> str:
    """Put a version in use whatever the gate said of it; return a line that says so."""
    store = ModelRegistry(url)
    with store.lease() as lease:
        store.promote(number, lease, "promoted by hand")
    return f"version {number} is now in use"


def roll_back_model(url: str) -> str:
    """Put the version in use that was in use before; return a line that says so."""
    store = ModelRegistry(url)
    with store.lease() as lease:
        before = store.current()
        after = store.roll_back(lease)
    return f"version {after.number} is now in use, instead of {before.number if before else '-'}"


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_s))
