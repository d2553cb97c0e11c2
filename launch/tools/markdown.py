"""What the pages of the reference share: tables in Markdown, and kinds and bounds of values in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

GENERATED = "<!-- Written by `make docs` from the code. Change the texts there, not here. -->"
SCALARS = {
    int: "whole number",
    tuple[int, int]: "two whole numbers",
    float: "number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; the cells must not hold line breaks."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def plain(text: str) -> str:
    """Return ``text`` such that Markdown shows it as it is, also within a table."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "\\<").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def code(text: str) -> str:
    """Return ``text`` as code that may stand within a table."""
    return f"`{text}`".replace("|", "\\|")


def interval(bounds: dict[str, Any]) -> str:
    """Return ", 1 to 64", ", at least 1", ", above 0" or nothing."""
    low, high = bounds.get("ge"), bounds.get("le")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return "".join(f", {words[key]} {bound:,}" for key, bound in bounds.items() if bound is not None)
