"""``freqgan storage check``: a table of what the storage of a folder does, and whether runs may be kept there."""

from __future__ import annotations

from rich import box
from rich.table import Table

from cluster.storage.storage_check import StorageCheck, check_storage
from freqgan.errors import InputError
from launch.console.tables import result_console

WIDTH = 140


def show_storage_check(url: str) -> None:
    """Prints what was tried at ``url``.

    Raises:
        InputError: a run cannot be kept there, with what it lacks.

    """
    check = check_storage(url)
    print(f"{check.url} on {check.store}")
    result_console(WIDTH).print(_table(check))
    if check.missing:
        lacking = "; ".join(f"{one.name} ({one.detail})" for one in check.missing)
        raise InputError(
            f"{check.url} cannot hold a run: {check.store} lacks {lacking}; keep runs on a store that honours If-Match "
            "and If-None-Match, or on a disk. Shards can be read from it, and pictures written to it, all the same"
        )


def _table(check: StorageCheck) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("", "what was tried", "what came of it"):
        table.add_column(heading, overflow="fold")
    for one in check.capabilities:
        mark = "yes" if one.holds else ("NO" if one.needed else "no")
        detail = one.detail or ("" if one.holds else "not possible")
        table.add_row(mark, one.name, detail + ("" if one.holds or one.needed else "; not needed"))
    return table
