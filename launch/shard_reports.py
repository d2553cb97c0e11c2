"""``freqgan shards index``, ``verify`` and ``info``: a progress bar on stderr, what was found on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.progress import Progress
from rich.table import Table

from cluster.evaluation import MIXED_SHARDS
from cluster.images import ImagePolicy
from cluster.ingest import DataSettings, Ingest
from cluster.shard_index import INDEX_NAME, build_index, index_shards, verify_shards
from cluster.shards import Shard, ShardIndex
from freqgan.errors import RunError
from launch.consoles import facts_table, plain_console
from launch.pictures import encode_png, tile
from launch.targets import writable_object

PRINTED_WIDTH = 132
SHOWN, SHOWN_SIDE = 64, 64
"""Images of a grid, and the pixels of the square that each of them is brought to."""


def index_with_progress(data: str) -> str:
    """Writes the index of the shards ``data``; returns a line that says of what. Errors as of ``index_shards``."""
    with progress_bar("indexing") as advance:
        shards = index_shards(data, advance)
    size_mib = sum(shard.size_bytes for shard in shards) / 2**20
    count, others = sum(len(shard.samples) for shard in shards), passed_over_text(shards)
    passed_over = f"; passed over: {others}" if others else ""
    return f"{count} images in {shards_text(len(shards))} ({size_mib:.1f} MiB) indexed{passed_over}"


def verify_with_progress(data: str) -> str:
    """Prints a table of all that is wrong with the shards ``data``; returns a line where nothing is.

    Raises:
        RunError: something is damaged or missing.

    """
    with progress_bar("verifying") as advance:
        rows = verify_shards(data, advance)
    unknown = sum(not indexed for _, indexed, _ in rows)
    wrong = [(url, what) for url, _, what in rows if what is not None]
    if wrong:
        folders = {url.rpartition("/")[0] for url, _ in wrong}
        table = Table(box=box.SIMPLE, title=f"in {folders.pop()}" if len(folders) == 1 else None, title_justify="left")
        table.add_column("shard", overflow="fold")
        table.add_column("what is wrong", overflow="fold")
        for url, what in wrong:
            table.add_row(url if folders else url.rpartition("/")[2], what.removeprefix(f"{url} "))
        plain_console(PRINTED_WIDTH).print(table)
        raise RunError(f"{len(wrong)} of {shards_text(len(rows))} are damaged: restore them, or leave them out of data")
    hint = f"; no index knows {unknown} of them: `freqgan shards index` writes one" if unknown else ""
    return f"{shards_text(len(rows))} in order{hint}"


def show_info(data: str, grid: str | None) -> None:
    """Prints what the shards ``data`` hold, and writes random ones of their images to ``grid`` if it is given.

    Errors as of ``build_index``; InputError for an image that cannot be decoded.
    """
    target = writable_object("--grid", grid) if grid is not None else None
    index = build_index(data)
    plain_console(PRINTED_WIDTH).print(facts_table(_facts(index).items()))
    if target is not None:
        count = min(SHOWN, index.sample_count)
        with Ingest(index, ImagePolicy(size=SHOWN_SIDE), 0, DataSettings(shuffle_shards=MIXED_SHARDS)) as ingest:
            target[0].write(target[1], encode_png(tile(ingest.batch(0, count).images, gap=1)))
        print(f"{count} random images: {grid}")


def _facts(index: ShardIndex) -> dict[str, str]:
    """Lines of the table by their name."""
    samples = [sample for shard in index.shards for sample in shard.samples]
    sizes = sorted(sample.size_bytes for sample in samples)
    known = sum(shard.sha256 is not None for shard in index.shards)
    kinds = Counter(sample.image_name.rpartition(".")[2].lower() for sample in samples)
    labels = Counter(sample.label for sample in samples if sample.label is not None)
    unlabelled = len(samples) - labels.total()
    facts = {
        "shards": f"{len(index.shards)}, {sum(shard.size_bytes for shard in index.shards) / 2**20:,.1f} MiB",
        "images": f"{len(samples):,}: {', '.join(f'{count:,} .{kind}' for kind, count in kinds.most_common())}",
        "bytes of an image": f"{sizes[0]:,} to {sizes[-1]:,}, median {sizes[len(sizes) // 2]:,}",
        "in an index": f"all, with checksums: damage is noticed ({INDEX_NAME})"
        if known == len(index.shards)
        else f"{known} of {len(index.shards)} shards: `freqgan shards index` writes one",
    }
    if labels:
        fewest, most = min(labels.values()), max(labels.values())
        each = f"{most:,} images each" if fewest == most else f"{fewest:,} to {most:,} images each"
        facts["labels"] = f"{len(labels)}, from {min(labels)} to {max(labels)}, {each}"
    if others := passed_over_text(index.shards):
        facts["passed over"] = others
    if unlabelled:
        facts["without a label"] = f"{unlabelled:,} images"
    return facts


def passed_over_text(shards: Sequence[Shard]) -> str:
    """How many members of ``shards`` are neither images nor labels, by kind; "" where there are none."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(dict(shard.others))
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def shards_text(count: int) -> str:
    """``count`` of them in words."""
    return f"{count} shard{'s' if count > 1 else ''}"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is gone afterwards, and no bar where nobody watches."""
    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
