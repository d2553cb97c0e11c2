"""Which bands a transform has and how large they are, by its name alone: settings are checked with it.

Nothing in here needs torch, PyWavelets or tables of filters, so that a wrong setting is refused at once. The
transforms themselves, in :mod:`freqgan.transforms`, are these layouts with the arithmetic added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from freqgan.errors import InputError, nearest
from freqgan.layouts.band_layout import BandLayout, PacketLayout, RingLayout
from freqgan.layouts.clip_layout import ClipLayout, largest_time_levels
from freqgan.layouts.members import check_cosine, taper_named, wavelet_named

__all__ = ["BandLayout", "ClipLayout", "PacketLayout", "RingLayout", "largest_time_levels", "parse_layout"]


def _wavelets(member: str, levels: int) -> BandLayout:
    return BandLayout(f"dwt:{wavelet_named(member)}", levels)


def _cosines(member: str, levels: int) -> BandLayout:
    check_cosine(member)
    return BandLayout("dct", levels)


def _tapers(member: str, levels: int) -> BandLayout:
    return BandLayout(f"fft:{taper_named(member)}", levels)


_FAMILIES: dict[str, Callable[[str, int], BandLayout]] = {
    "dwt": _wavelets,
    "dct": _cosines,
    "fft": _tapers,
    "radial": RingLayout,
}


def parse_layout(spec: str, levels: int, packets: Mapping[int, int] | None = None) -> BandLayout:
    """Return the layout of the transform called ``spec``, "<family>:<member>", with ``levels`` levels.

    Args:
        spec: dwt:<a PyWavelets discrete wavelet>, dct, fft:shannon, fft:meyer or radial:P,Q.
        levels: resolutions; 1 is the finest.
        packets: how often the high bands of a level are split again, see :class:`PacketLayout`.

    Raises InputError, naming the nearest names, when the family or its member is unknown, when levels < 0, and when
    there are packets of rings.

    """
    family, _, member = spec.partition(":")
    if family not in _FAMILIES:
        known = list(_FAMILIES)
        raise InputError(
            f"transform {spec!r}: unknown family {family!r}{nearest(family, known)}; known: {', '.join(known)}; "
            "write for example dwt:haar"
        )
    layout = _FAMILIES[family](member, levels)
    if not packets or not any(packets.values()):
        return layout
    if isinstance(layout, RingLayout):
        raise InputError(
            f"packets: the bands of {spec} are rings, which are not split again; give it more classes, "
            f"or choose dwt:<wavelet>, dct or fft:<taper>"
        )
    return PacketLayout(layout.spec, levels, packets)
