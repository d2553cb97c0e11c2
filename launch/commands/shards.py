"""``freqgan shards index``, ``verify`` and ``info``: a progress bar on stderr, what was found on stdout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager

import numpy as np
from rich import box
from rich.progress import Progress
from rich.table import Table

from cluster.data.decoding import Pixels
from cluster.data.quarantine import QuarantinedImage, images_of, reasons_text
from cluster.data.reader import BatchReader
from cluster.data.sample_survey import Survey, survey
from cluster.data.settings import MEMBER_EXTENSIONS, DataSettings, ImagePolicy
from cluster.data.shard_index import INDEX_NAME, build_index, index_shards, verify_shards
from cluster.data.shards import JOINED, ZEROS, Shard, ShardSet, split_extension
from cluster.data.targets import vector_length
from cluster.formats.meaning import UNIT, shared_values
from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import RunError, counted
from launch.console.tables import facts_table, plain_console
from launch.console.text import classes_text, images_text, pixels_text, printable, quoted
from launch.settings.targets import writable_object

PRINTED_WIDTH = 132
NAMED = 5
"""Names of a list that are printed."""

SHOWN, SHOWN_SIDE = 64, 64
"""Images of a grid, and the pixels of the square that each of them is brought to."""


def index_with_progress(data: str) -> str:
    """Write the index of the shards ``data``; return a line that says of what. Errors as of ``index_shards``."""
    with progress_bar("indexing") as advance:
        shards = index_shards(data, advance)
    size_mib = sum(shard.size_bytes for shard in shards) / 2**20
    count, others = sum(len(shard.samples) for shard in shards), passed_over_text(shards)
    line = f"{images_text(count)} in {shards_text(len(shards))} ({size_mib:.1f} MiB) indexed"
    beside = members_text(ShardSet(tuple(shards)))
    line += (f"; {beside}" if beside else "") + (f"; passed over: {others}" if others else "")
    return "\n".join([line, *(f"{name}: {text}" for name, text in _joined_facts(shards).items())])


def verify_with_progress(data: str) -> str:
    """Print a table of all that is wrong with the shards ``data``; return a line where nothing is.

    Raises:
        RunError: something is damaged or missing.

    """
    with progress_bar("verifying") as advance:
        rows = verify_shards(data, advance)
    unknown = sum(not indexed for _, indexed, _ in rows)
    wrong = [(url, what) for url, _, what in rows if what is not None]
    if wrong:
        folders = {url.rpartition("/")[0] for url, _ in wrong}
        table = Table(
            box=box.SIMPLE, title=printable(f"in {folders.pop()}") if len(folders) == 1 else None, title_justify="left"
        )
        table.add_column("shard", overflow="fold")
        table.add_column("what is wrong", overflow="fold")
        for url, what in wrong:
            table.add_row(
                printable(url if folders else url.rpartition("/")[2]), printable(what.removeprefix(f"{url} "))
            )
        plain_console(PRINTED_WIDTH).print(table)
        are = "is" if len(wrong) == 1 else "are"
        raise RunError(
            f"{len(wrong)} of {shards_text(len(rows))} {are} damaged: restore them, or leave them out of data"
        )
    hint = f"; no index knows {unknown} of them: `freqgan shards index` writes one" if unknown else ""
    return f"{shards_text(len(rows))} in order{hint}"


def show_info(data: str, grid: str | None) -> None:
    """Print what the shards ``data`` hold, and write random ones of their images to ``grid`` if it is given.

    Errors as of ``build_index``; RunError where ``grid`` is given and all images are damaged.
    """
    target = writable_object("--grid", grid) if grid is not None else None
    index = build_index(data)
    seen = survey(index)
    plain_console(PRINTED_WIDTH).print(facts_table((_facts(index) | stored_facts(index, seen)).items()))
    if target is not None:
        from cluster.imaging.pictures import encode_png
        from launch.drawing.grids import tile

        images, left_out = _random_images(index, seen)
        target[0].write(target[1], encode_png(tile(images, gap=1)))
        print(f"{counted(len(images), 'random image')}: {printable(grid or '')}")
        if left_out:
            print(f"damaged, and not among them: {reasons_text(left_out)}", file=sys.stderr)


def _random_images(index: ShardSet, seen: Survey) -> tuple[Pixels, Sequence[QuarantinedImage]]:
    """Return different images (B, C, N, N), of clips a frame, and the damaged ones that were met."""
    from cluster.evaluation.evaluate import MIXED_SHARDS  # which loads torch: the other commands do without
    from cluster.run.data_source import sound_batch

    policy, order = _shown_policy(seen), DataSettings(shuffle_shards=MIXED_SHARDS)
    with BatchReader(index, policy, 0, order, most_damaged=index.sample_count) as ingest:
        batch, damaged = sound_batch(ingest, 0, min(SHOWN, index.sample_count))
    images = batch.images[: index.sample_count - len(images_of(damaged)), : policy.channels]
    colours = images[:, : 3 if policy.channels >= 3 else 1]
    if policy.bit_depth != 8:
        import torch  # which the other commands do without

        from freqgan.pixels import to_eight_bits

        colours = to_eight_bits(torch.from_numpy(np.ascontiguousarray(colours))).numpy()
    return colours, damaged


def _shown_policy(seen: Survey) -> ImagePolicy:
    """Return how images of a grid are read: as colours, or as what all that were looked at are."""
    size, (channels, bits, frames) = SHOWN_SIDE, (seen.channels, seen.bits, seen.frames)
    if bits <= {8} and frames <= {1} and channels <= {1, 3}:
        return ImagePolicy(size)
    depth: BitDepth = max(bits, default=8)
    values = (seen.least, max(seen.greatest, seen.least + 1)) if depth == FLOAT_BITS or len(seen.scales) > 1 else None
    if values is not None:
        depth = FLOAT_BITS
    return ImagePolicy(
        size,
        max(channels, default=3),
        bit_depth=depth,
        frames=min(frames, default=1),
        value_range=values,
        clip_values=True,
    )


def stored_facts(index: ShardSet, seen: Survey) -> dict[str, str]:
    """Return what is stored of an image, by the name of the line: its size, of clips frames, and what values it has."""
    if not seen.sound:
        return {}
    least, greatest = min(seen.sizes), max(seen.sizes)
    size = pixels_text(least) if least == greatest else f"{pixels_text(least)} to {pixels_text(greatest)}"
    channels, bits = (_several(numbers) for numbers in (seen.channels, seen.bits))
    form = f"{channels} channel{'s' * (channels != '1')} of {bits} bits"
    facts = {"pixels": f"{size}, {form}"}
    if seen.frames != {1}:
        rate = f", {_several(seen.rates)} fps" if seen.rates else ""
        facts = {"clips": f"{_several(seen.frames)} frames of {size}{rate}, {form}"}
    values = shared_values(index.values.values())
    if seen.bits != {8} or seen.scales != {(0.0, 1.0)}:
        facts["values"] = f"{seen.least:g} to {seen.greatest:g} {values.get(UNIT, '')}".rstrip() + _scale_text(seen)
    if seen.sound + seen.damaged < index.sample_count:
        facts["looked at"] = f"{images_text(seen.sound + seen.damaged)} of all, for pixels and values"
    if seen.damaged:
        facts["damaged"] = f"{images_text(seen.damaged)} of those looked at: `freqgan shards verify` names all"
    return facts


def _scale_text(seen: Survey) -> str:
    if len(seen.scales) > 1:
        return " (each image has its own offset and slope)"
    ((offset, slope),) = seen.scales
    return "" if (offset, slope) == (0.0, 1.0) else f" (offset {offset:g}, slope {slope:g})"


def _several(numbers: Set[float]) -> str:
    """Return a number, or the least and the greatest of several: "16", "8 to 32"."""
    least, greatest = min(numbers), max(numbers)
    return f"{least:g}" if least == greatest else f"{least:g} to {greatest:g}"


def _facts(index: ShardSet) -> dict[str, str]:
    """Return lines of the table by their name."""
    samples = [sample for shard in index.shards for sample in shard.samples]
    sizes = sorted(sample.size_bytes for sample in samples)
    known = sum(shard.sha256 is not None for shard in index.shards)
    kinds = Counter((split_extension(sample.image_name) or ("", ""))[1].lower() for sample in samples)
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
    facts |= _class_facts(index)
    if beside := members_text(index):
        facts["beside images"] = beside
    if others := passed_over_text(index.shards):
        facts["passed over"] = others
    facts |= _joined_facts(index.shards)
    if unlabelled:
        facts["without a label"] = images_text(unlabelled)
    return facts


def _class_facts(index: ShardSet) -> dict[str, str]:
    """Return what labels mean; by folder where the same label means different things."""
    if index.ambiguous_label is None:
        return {"classes": classes_text(index.class_names)} if index.class_names else {}
    lines = (f"{classes_text(names)} in {printable(folder)}" for folder, names in index.classes.items())
    return {"classes": "\n".join(lines)}


def members_text(index: ShardSet) -> str:
    """Return how many images have what beside them: "all with .txt, 9,990 with .npy of 512 numbers"; "" for none."""
    samples = [(shard, sample) for shard in index.shards for sample in shard.samples]
    parts = []
    for extension in MEMBER_EXTENSIONS:
        having = [(shard, sample) for shard, sample in samples if sample.member(extension)]
        if not having:
            continue
        count = "all" if len(having) == len(samples) else f"{len(having):,}"
        length = vector_length(*having[0]) if extension == "npy" else None
        parts.append(f"{count} with .{extension}" + (f" of {counted(length, 'number')}" if length is not None else ""))
    return ", ".join(parts)


def _joined_facts(shards: Sequence[Shard]) -> dict[str, str]:
    counts = _counts(shards)
    facts = {}
    if count := counts[JOINED]:
        facts["joined"] = f"{count:,} more tar{'s' if count > 1 else ''} behind the first of a shard, read as well"
    if count := counts[ZEROS]:
        facts["zeros"] = f"{count:,} MiB at the end of shards: was one cut off, and its rest filled with zeros?"
    return facts


def _counts(shards: Sequence[Shard]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(dict(shard.others))
    return counts


def passed_over_text(shards: Sequence[Shard]) -> str:
    """Return how many members of ``shards`` are read for nothing, by kind; "" where there are none."""
    counts = _counts(shards).most_common()
    return ", ".join(f"{count:,} {printable(kind)}" for kind, count in counts if kind not in (JOINED, ZEROS))


def names_text(names: Sequence[str]) -> str:
    """Return a few of ``names`` and how many more there are."""
    few = ", ".join(map(quoted, names[:NAMED]))
    return f"{few} and {len(names) - NAMED:,} more" if len(names) > NAMED else few


def shards_text(count: int) -> str:
    """Return ``count`` of them in words."""
    return f"{count} shard{'s' if count > 1 else ''}"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that is gone afterwards, and no bar where nobody watches."""
    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
