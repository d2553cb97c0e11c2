"""``freqgan shards pack`` with a progress bar on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from cluster.packing import PackReport, pack


def pack_with_progress(source: str, destination: str, shard_size_mib: int, shard_samples: int) -> str:
    """Packs and returns a line that says what was packed and what was passed over; errors as of ``pack``."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("packing", total=None)
        report = pack(
            source,
            destination,
            shard_size_bytes=shard_size_mib * 2**20,
            shard_samples=shard_samples,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return _summary(report, destination)


def _summary(report: PackReport, destination: str) -> str:
    classes = f" of {len(report.classes)} classes" if report.classes else ""
    passed = [f"{report.hidden} hidden files"] * bool(report.hidden) + [f"{report.others} other files"] * bool(
        report.others
    )
    passed_text = f"; passed over: {', '.join(passed)}" if passed else ""
    size_mib = report.size_bytes / 2**20
    shards = f"{report.shards} shard{'s' if report.shards > 1 else ''}"
    return f"{report.images} images{classes} in {shards} ({size_mib:.1f} MiB) at {destination}{passed_text}"
