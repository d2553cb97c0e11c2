"""Numbers in words, for people."""

from __future__ import annotations

from freqgan.errors import counted


def duration_text(seconds: float) -> str:
    """Seconds as "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def images_text(count: int) -> str:
    """Return "1 image", "2 images"."""
    return counted(count, "image")
