"""``freqgan shards pack`` with a progress bar on stderr."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.data.image_tables import NO_COLUMNS, TableColumns
from cluster.data.packing import PackReport, pack
from cluster.formats.source_format import STILLS, PieceOptions
from freqgan.errors import counted
from launch.commands.shards import names_text, progress_bar, shards_text
from launch.console.text import classes_text, images_text, printable

MOST_CLASSES = 50
"""How many classes are printed."""
MOST_REFUSED = 10
"""How many files without images are named."""


def pack_with_progress(
    source: str,
    destination: str,
    shard_size_mib: int,
    shard_samples: int,
    table: str | None = None,
    columns: TableColumns = NO_COLUMNS,
    options: PieceOptions = STILLS,
) -> str:
    """Pack, and return a line that says what was packed and what was passed over; errors as of ``pack``."""
    with progress_bar("packing") as advance:
        report = pack(
            source,
            destination,
            shard_size_bytes=shard_size_mib * 2**20,
            shard_samples=shard_samples,
            table=table,
            columns=columns,
            options=options,
            progress=advance,
        )
    return _summary(report, destination)


def _summary(report: PackReport, destination: str) -> str:
    classes = f" of {len(report.classes)} classes" if report.classes else ""
    kinds = (("hidden", report.hidden), ("other", report.others))
    passed = [f"{count} {kind} file{'s' if count > 1 else ''}" for kind, count in kinds if count]
    passed += [f"{names_text(report.returning)} (back to folders that are packed anyway)"] if report.returning else []
    size_mib = report.size_bytes / 2**20
    shards = shards_text(report.shards)
    what = images_text(report.images) if report.frames is None else _clips_text(report)
    lines = [f"{what}{classes} in {shards} ({size_mib:.1f} MiB) at {printable(destination)}"]
    lines[0] += f"; passed over: {', '.join(passed)}" if passed else ""
    lines += _frame_lines(report)
    lines += _refused_lines(report)
    beside = ", ".join(f"{count:,} .{extension}" for extension, count in report.beside.items())
    lines += [f"beside the {'images' if report.frames is None else 'videos'}: {beside}"] if beside else []
    lines += _table_lines(report)
    lines += (
        [f"classes: {classes_text(report.classes, MOST_CLASSES, '`freqgan shards info` prints all')}"]
        if report.classes
        else []
    )
    lines += [f"without images: {names_text(report.empty)}"] if report.empty else []
    return "\n".join(lines)


def _clips_text(report: PackReport) -> str:
    clips = f"{counted(report.images, 'clip')} of {report.frames} frames"
    return f"{clips} of {counted(report.files, 'video')}"


def _frame_lines(report: PackReport) -> list[str]:
    """Return what of videos is in no clip, and why."""
    tally, lines = report.tally, list[str]()
    if tally.left_over:
        why = [counted(tally.cuts, "cut")] * bool(tally.cuts) + [counted(tally.gaps, "gap")] * bool(tally.gaps)
        ends = " and ".join(["at the ends of videos", *(f"before {what}" for what in why)])
        lines.append(f"in no clip: {counted(tally.left_over, 'frame')} {ends}")
    elif tally.cuts or tally.gaps:
        lines.append(f"clips end at {counted(tally.cuts, 'cut')} and {counted(tally.gaps, 'gap')}")
    if report.without_clips:
        lines.append(f"without clips, for they are too short: {_listed(report.without_clips, 'video')}")
    return lines


def _refused_lines(report: PackReport) -> list[str]:
    """Return which files hold no image, and what else, up to MOST_REFUSED of them."""
    said = [printable(text) for _, text in sorted(report.refused.items())]
    lines = [f"not packed: {text}" for text in said[:MOST_REFUSED]]
    return lines + ([f"and {len(said) - MOST_REFUSED} more that hold no image"] if len(said) > MOST_REFUSED else [])


def _table_lines(report: PackReport) -> list[str]:
    """Return what the table was, and what of it and of the images does not belong together."""
    if not report.table:
        return []
    lines = [f"described by {printable(report.table)}"]
    if report.unnamed:
        lines.append(f"not packed, for it does not name them: {_listed(report.unnamed, 'image')}")
    if report.lost:
        lines.append(f"in it without an image: {_listed(report.lost, 'row')}")
    return lines


def _listed(names: Sequence[str], noun: str) -> str:
    return f"{counted(len(names), noun)} ({names_text(names)})"
