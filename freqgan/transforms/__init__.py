"""Exactly invertible transforms of an image into the sub-images that the band GANs learn; a library by itself.

``parse_transform`` makes one by its name; ``wavedec2`` and ``waverec2`` are the functions of PyWavelets. ``protocol``
is what every transform gives, ``dwt``, ``spectral`` and ``radial`` are the families, ``packets`` splits high bands
again, ``temporal`` splits clips along time. Nothing here knows a network: it needs PyTorch, NumPy, SciPy and PyWavelets
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from freqgan.layouts import PacketLayout, parse_layout
from freqgan.transforms.dwt import WaveletTransform
from freqgan.transforms.lifting import integer_wavedec2, integer_waverec2
from freqgan.transforms.packets import PacketTransform
from freqgan.transforms.protocol import BandTransform, Quad
from freqgan.transforms.quadrants import QuadrantTransform
from freqgan.transforms.radial import RadialTransform
from freqgan.transforms.spectral import CosineTransform, FourierTransform
from freqgan.transforms.temporal import ClipTransform
from freqgan.transforms.wavedec import wavedec2, waverec2

__all__ = [
    "BandTransform",
    "ClipTransform",
    "CosineTransform",
    "FourierTransform",
    "PacketTransform",
    "Quad",
    "RadialTransform",
    "WaveletTransform",
    "integer_wavedec2",
    "integer_waverec2",
    "parse_transform",
    "wavedec2",
    "waverec2",
]

_FAMILIES: dict[str, Callable[[str, int], BandTransform]] = {
    "dwt": WaveletTransform,
    "dct": CosineTransform,
    "fft": FourierTransform,
    "radial": RadialTransform,
}


def parse_transform(spec: str, levels: int, packets: Mapping[int, int] | None = None) -> BandTransform:
    """Return the transform called ``spec``, "<family>:<member>", with ``levels`` levels.

    For example ``parse_transform("dwt:db2", 3)``.

    Arguments and errors are those of :func:`freqgan.layouts.parse_layout`, which names all families.
    """
    layout = parse_layout(spec, levels, packets)
    family, _, member = layout.spec.partition(":")
    transform = _FAMILIES[family](member, levels)
    if isinstance(layout, PacketLayout) and isinstance(transform, QuadrantTransform):
        return PacketTransform(transform, layout.splits)
    return transform
