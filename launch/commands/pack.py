"""``freqgan shards pack`` with a progress bar on stderr."""

from __future__ import annotations

from cluster.data.packing import PackReport, pack
from launch.commands.shards import classes_text, names_text, printable, progress_bar, shards_text
from launch.console.text import images_text

MOST_CLASSES = 50
"""How many classes are printed."""


def pack_with_progress(source: str, destination: str, shard_size_mib: int, shard_samples: int) -> str:
    """Pack, and return a line that says what was packed and what was passed over; errors as of ``pack``."""
    with progress_bar("packing") as advance:
        report = pack(
            source,
            destination,
            shard_size_bytes=shard_size_mib * 2**20,
            shard_samples=shard_samples,
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
    lines = [f"{images_text(report.images)}{classes} in {shards} ({size_mib:.1f} MiB) at {printable(destination)}"]
    lines[0] += f"; passed over: {', '.join(passed)}" if passed else ""
    lines += [f"classes: {classes_text(report.classes, MOST_CLASSES)}"] if report.classes else []
    lines += [f"without images: {names_text(report.empty)}"] if report.empty else []
    return "\n".join(lines)
