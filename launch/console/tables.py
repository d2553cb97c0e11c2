"""Where tables and progress are printed: names as they are, whatever brackets and colons somebody put into them."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table


def plain_console(width: int | None = None, *, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console that takes no text for markup ("[v2]"), for emoji (":cat:") or for something to colour."""
    return Console(width=width, stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Return facts by their names; long ones go on in the next line, and are never cut."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(name, text)
    return table


def result_console(width: int) -> Console:
    """Return a console on stdout, as wide as the terminal, or ``width`` where there is none.

    Rich would assume 80 columns.
    """
    return plain_console(None if sys.stdout.isatty() else width)
