"""The names of wavelets and tapers that transforms are chosen by.

PyWavelets has the filters, and its import takes as long as all of the settings; its names are listed here instead,
and a test holds the list against PyWavelets.
"""

from __future__ import annotations

from typing import Final, Literal, cast, get_args

from freqgan.errors import InputError, nearest

Taper = Literal["shannon", "meyer"]

_BIORTHOGONAL = (
    "1.1", "1.3", "1.5", "2.2", "2.4", "2.6", "2.8", "3.1", "3.3", "3.5", "3.7", "3.9", "4.4", "5.5", "6.8",
)  # fmt: skip
DISCRETE_WAVELETS: Final[dict[str, tuple[str, ...]]] = {
    "haar": ("haar",),
    "db": tuple(f"db{moments}" for moments in range(1, 39)),
    "sym": tuple(f"sym{moments}" for moments in range(2, 21)),
    "coif": tuple(f"coif{moments}" for moments in range(1, 18)),
    "bior": tuple(f"bior{orders}" for orders in _BIORTHOGONAL),
    "rbio": tuple(f"rbio{orders}" for orders in _BIORTHOGONAL),
    "dmey": ("dmey",),
}
"""The discrete wavelets of PyWavelets by family."""
CONTINUOUS_WAVELETS: Final = ("gaus", "mexh", "morl", "cgau", "shan", "fbsp", "cmor")
"""The families of PyWavelets whose wavelets have no exact inverse; the names of their wavelets begin with them."""


def wavelet_named(name: str) -> str:
    """Return the discrete wavelet ``name`` in small letters; InputError when PyWavelets has no such one."""
    lower = name.lower()
    discrete = [wavelet for family in DISCRETE_WAVELETS.values() for wavelet in family]
    if lower in discrete:
        return lower
    scene = f"transform 'dwt:{name}'"
    if not name:
        raise InputError(f"{scene}: no wavelet named; write for example dwt:haar")
    if lower.startswith(CONTINUOUS_WAVELETS):
        raise InputError(
            f"{scene}: {name} is a continuous wavelet, which has no inverse; use a discrete one, as dwt:haar"
        )
    raise InputError(
        f"{scene}: unknown wavelet {name!r}{nearest(lower, discrete)}; families: {', '.join(DISCRETE_WAVELETS)}"
    )


def taper_named(name: str) -> Taper:
    """Return the taper of a Fourier bank called ``name``, in any case of letters; InputError when there is none."""
    tapers = get_args(Taper)
    if name.lower() in tapers:
        return cast("Taper", name.lower())
    raise InputError(
        f"transform 'fft:{name}': {f'unknown taper {name!r}' if name else 'no taper named'}"
        f"{nearest(name, list(tapers))}; write fft:shannon or fft:meyer"
    )


def check_cosine(member: str) -> None:
    """Raise InputError when the cosine transform is given a ``member``: there is only one."""
    if member:
        raise InputError(f"transform 'dct:{member}': there is one cosine transform; write dct")
