"""Layouts are those of the transforms of the same name, and know PyWavelets' names."""

from __future__ import annotations

import pytest
import pywt

from freqgan.errors import InputError
from freqgan.layouts import parse_layout
from freqgan.layouts.members import CONTINUOUS_WAVELETS, DISCRETE_WAVELETS
from freqgan.transforms import parse_transform

SPECS: list[tuple[str, dict[int, int]]] = [
    ("dwt:DB2", {}), ("dwt:bior4.4", {1: 1}), ("dct", {}), ("fft:Meyer", {2: 2}), ("radial:3,4", {}),
]  # fmt: skip


def test_the_discrete_wavelets_are_those_of_pywavelets() -> None:
    continuous = set(pywt.families()) - DISCRETE_WAVELETS.keys()
    assert {family: tuple(pywt.wavelist(family)) for family in DISCRETE_WAVELETS} == DISCRETE_WAVELETS
    assert sorted(name for names in DISCRETE_WAVELETS.values() for name in names) == sorted(
        pywt.wavelist(kind="discrete")
    )
    assert continuous == set(CONTINUOUS_WAVELETS)


@pytest.mark.parametrize(("spec", "packets"), SPECS)
def test_a_layout_is_that_of_its_transform(spec: str, packets: dict[int, int]) -> None:
    layout, transform = parse_layout(spec, 3, packets), parse_transform(spec, 3, packets)
    assert (layout.spec, layout.levels, layout.depth) == (transform.spec, transform.levels, transform.depth)
    assert layout.bands() == transform.bands()
    size = (64, 96)
    assert [layout.band_size(size, band) for band in layout.bands()] == [
        transform.band_size(size, band) for band in transform.bands()
    ]


@pytest.mark.parametrize(
    ("spec", "levels", "packets"),
    [
        ("dwt:db200", 2, {}), ("dwt:gaus1", 2, {}), ("dwt:", 2, {}), ("dct:2", 2, {}), ("fft:mexer", 2, {}),
        ("radial:3,4", 2, {}), ("radial:2,99", 2, {}), ("radial:x", 2, {}), ("wavelet:db2", 2, {}), ("dct", -1, {}),
        ("dct", 2, {3: 1}), ("dct", 2, {1: 9}), ("radial:2,3", 2, {1: 1}),
    ],
)  # fmt: skip
def test_both_refuse_the_same_with_the_same_words(spec: str, levels: int, packets: dict[int, int]) -> None:
    with pytest.raises(InputError) as of_layout:
        parse_layout(spec, levels, packets)
    with pytest.raises(InputError) as of_transform:
        parse_transform(spec, levels, packets)
    assert str(of_layout.value) == str(of_transform.value)
