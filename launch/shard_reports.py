"""``freqgan shards index`` and ``freqgan shards verify``: a progress bar on stderr, what was found on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cluster.shard_index import index_shards, verify_shards
from freqgan.errors import RunError

PRINTED_WIDTH = 132


def index_with_progress(data: str) -> str:
    """Writes the index of the shards ``data``; returns a line that says of what. Errors as of ``index_shards``."""
    with _bar("indexing") as advance:
        shards = index_shards(data, advance)
    size_mib = sum(shard.size_bytes for shard in shards) / 2**20
    return f"{sum(len(s.samples) for s in shards)} images in {_shards(len(shards))} ({size_mib:.1f} MiB) indexed"


def verify_with_progress(data: str) -> str:
    """Prints a table of all that is wrong with the shards ``data``; returns a line where nothing is.

    Raises:
        RunError: something is damaged or missing.

    """
    with _bar("verifying") as advance:
        rows = verify_shards(data, advance)
    unknown = sum(not indexed for _, indexed, _ in rows)
    wrong = [(url, what) for url, _, what in rows if what is not None]
    if wrong:
        folders = {url.rpartition("/")[0] for url, _ in wrong}
        table = Table(box=box.SIMPLE, title=f"in {folders.pop()}" if len(folders) == 1 else None, title_justify="left")
        table.add_column("shard", overflow="fold")
        table.add_column("what is wrong")
        for url, what in wrong:
            table.add_row(url if folders else url.rpartition("/")[2], what.removeprefix(f"{url} "))
        Console(width=PRINTED_WIDTH).print(table)
        raise RunError(f"{len(wrong)} of {_shards(len(rows))} are damaged: restore them, or leave them out of data")
    hint = f"; no index knows {unknown} of them: `freqgan shards index` writes one" if unknown else ""
    return f"{_shards(len(rows))} in order{hint}"


def _shards(count: int) -> str:
    return f"{count} shard{'s' if count > 1 else ''}"


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is gone afterwards, and no bar where nobody watches."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
