"""``freqgan storage check``: a table of what the storage of a folder does, and whether runs may be kept there."""

from __future__ import annotations

from rich import box
from rich.table import Table

from cluster.storage.storage_check import StorageCheck, check_storage
from freqgan.errors import InputError
from launch.console.tables import result_console

WIDTH = 140


def show_storage_check(url: str) -> None:
    """Print what was tried at ``url``.

    Raises:
        InputError: a run cannot be kept there, with what it lacks.

    """
    check = check_storage(url)
    print(f"{check.url} on {check.store}")
    result_console(WIDTH).print(_table(check))
    if check.missing:
        lacking = "; ".join(f"{capability.name} ({capability.detail})" for capability in check.missing)
        raise InputError(
            f"{check.url} cannot hold a run: {check.store} lacks {lacking}; keep runs on a store that honours If-Match "
            "and If-None-Match, or on a disk. Shards can be read from it, and pictures written to it, all the same"
        )


def _table(check: StorageCheck) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("", "what was tried", "what came of it"):
        table.add_column(heading, overflow="fold")
    for capability in check.capabilities:
        mark = "yes" if capability.holds else ("NO" if capability.needed else "no")
        detail = capability.detail or ("" if capability.holds else "not possible")
        table.add_row(mark, capability.name, detail + ("" if capability.holds or capability.needed else "; not needed"))
    return table
