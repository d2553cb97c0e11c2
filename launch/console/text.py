"""Numbers in words, and names, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import counted
from freqgan.model.settings import ModelSettings
from freqgan.sizes import Size, width_by_height

KIND_NAMES = {"gan": "GAN", "flow": "flow expert", "student": "student"}


def duration_text(seconds: float) -> str:
    """Seconds as "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size_text(size_bytes: int) -> str:
    """Return a size in MiB, or in KiB where it is less than one."""
    return f"{size_bytes / 2**20:,.1f} MiB" if size_bytes >= 2**20 else f"{size_bytes / 2**10:,.1f} KiB"


def pixels_text(size: Size) -> str:
    """Return "32 px", or "160 x 96 px" for (96, 160)."""
    return f"{size[0]} px" if size[0] == size[1] else f"{width_by_height(size)} px"


def form_text(settings: ModelSettings) -> str:
    """Return what an image of the model is: "32 px, colour, 8 bits", "16 frames of 32 px, grey, 16 bits"."""
    size = pixels_text(settings.size)
    if settings.frames > 1:
        size = f"{settings.frames} {planes_noun(settings)} of {size}"
    channels = {1: "grey", 3: "colour"}.get(settings.channels, f"{settings.channels} channels")
    return f"{size}, {channels}, {values_text(settings)}"


def values_text(settings: ModelSettings) -> str:
    """Return what numbers pixels are: "8 bits", "floats from -1024 to 3071"."""
    if settings.bit_depth != FLOAT_BITS:
        return f"{settings.bit_depth} bits"
    least, greatest = settings.value_ends
    return f"floats from {least:g} to {greatest:g}"


def planes_noun(settings: ModelSettings) -> str:
    """Return what the T images of a sample are called: "frames", or "slices" of volumes.

    Settings do not say which they are. Videos have 8 bits, so that what has more is taken for a volume.
    """
    return "frames" if settings.bit_depth == 8 else "slices"


def images_text(count: int) -> str:
    """Return "1 image", "2 images"."""
    return counted(count, "image")


def experts_text(settings: ModelSettings) -> str:
    """Return how many experts there are of each kind: "4 GANs", "1 flow expert and 2 GANs"."""
    if settings.system == "fusion":
        return "2 generators, trained with that of the image as one GAN"
    kinds = Counter(gan.kind for gan in settings.band_plan().gans)
    return " and ".join(counted(kinds[kind], KIND_NAMES[kind]) for kind in kinds) or "none"


def classes_text(names: Sequence[str], most: int | None = None, where: str = "") -> str:
    """Return label and name of every class, or of the first ``most`` and ``where`` all are: "0=cat, 1=dog"."""
    text = ", ".join(f"{label}={quoted(name)}" for label, name in enumerate(names[:most]))
    left = 0 if most is None else max(0, len(names) - most)
    return f"{text} and {left:,} more ({where})" if left else text


def quoted(name: str) -> str:
    """Return ``name``, in quotes where one could not see where it ends."""
    return f"'{printable(name)}'" if name != name.strip() or "," in name or not name else printable(name)


def printable(text: str) -> str:
    """Return ``text`` for a terminal: what it would not print, or would obey, is written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
