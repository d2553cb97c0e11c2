"""Exactly invertible transforms of an image into the sub-images that the band GANs learn."""

from __future__ import annotations

from collections.abc import Callable

from freqgan.errors import InputError, nearest
from freqgan.transforms.dwt import WaveletTransform
from freqgan.transforms.protocol import BandTransform, Quad

__all__ = ["BandTransform", "Quad", "WaveletTransform", "parse_transform"]

_FAMILIES: dict[str, Callable[[str, int], BandTransform]] = {"dwt": WaveletTransform}


def parse_transform(spec: str, levels: int) -> BandTransform:
    """The transform called ``spec``, "<family>:<member>", with ``levels`` levels: ``parse_transform("dwt:db2", 3)``.

    Raises InputError, naming the nearest names, when the family or its member is unknown, and when levels < 1.
    """
    family, _, member = spec.partition(":")
    if family not in _FAMILIES:
        known = list(_FAMILIES)
        raise InputError(
            f"transform {spec!r}: unknown family {family!r}{nearest(family, known)}; known: {', '.join(known)}; "
            "write for example dwt:haar"
        )
    return _FAMILIES[family](member, levels)
