from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from cluster.formats.scan import Scale, Scan, common_scale, greatest_step, in_scale
from cluster.formats.shared_scale import own_scale, shared_scale, span_of, to_floats, to_integers
from freqgan.errors import InputError


def scan(stored: Any, slope: str = "1", offset: str = "0", name: str = "a", unit: str = "HU") -> Scan:
    return Scan(name, np.asarray(stored).reshape(1, 1, -1), Scale(Fraction(slope), Fraction(offset)), unit=unit)


def round_trip(scans: list[Scan]) -> Scale:
    """Check that the values of all come back exactly, in fractions."""
    scale = shared_scale([span_of(each) for each in scans])
    for each in scans:
        integers = to_integers(each, scale)
        assert integers.dtype == np.uint16
        back = [int(k) * scale.slope + scale.offset for k in integers.ravel()]
        assert back == [int(k) * each.scale.slope + each.scale.offset for k in each.stored.ravel()]
        said = scale.members()
        assert float(Scale.of(said, "a").slope) == float(scale.slope)
        np.testing.assert_array_equal(integers * np.float64(said["slope"]) + said["offset"], scale.values(integers))
    return scale


def test_all_values_of_16_bits_come_back() -> None:
    every = np.arange(-32768, 32768, dtype=np.int32)
    assert round_trip([scan(every)]) == Scale(Fraction(1), Fraction(-32768))
    assert round_trip([scan(every, "0.684", "200")]).slope == Fraction("0.684")


def test_scans_of_different_slopes_share_their_greatest_common_step() -> None:
    scans = [scan([0, 3, 40], "1.5", "-1024"), scan([-7, 9], "0.25", "0.125"), scan([5, 6], "3e-7", "0")]
    with pytest.raises(InputError, match="levels, and 16 bits have 65536"):
        round_trip(scans)
    assert round_trip(scans[:2]).slope == Fraction(1, 8)


def test_a_scan_of_one_value_asks_for_no_step_of_its_own() -> None:
    """Its slope is that of a quantity, of which there is but one."""
    assert round_trip([scan([0, 3], "1", "-1024"), scan([10_000_000, 10_000_000], "1e-7", "-9")]).slope == 1


def test_slopes_of_float32_are_exact() -> None:
    slope = Fraction(float(np.float32(0.0754)))
    scale = Scale(slope, Fraction(float(np.float32(3100.76))))
    scans = [Scan("a", np.arange(-32768, 32767).reshape(1, 1, -1), scale)]
    assert round_trip(scans).members()["slope"] == float(slope)


def test_too_many_levels_are_refused_with_the_numbers() -> None:
    with pytest.raises(InputError) as refusal:
        shared_scale([span_of(scan([0, 10], "0.1", name="fine")), span_of(scan([0, 70000], name="wide"))])
    assert str(refusal.value) == (
        "fine ... wide: values from 0 to 70000 in steps of 0.1 (slopes 0.1, 1) are 700001 levels, and 16 bits have "
        "65536: keep each scan's own slope, or pack as float32"
    )


def test_a_slope_that_is_no_float_of_64_bits_is_refused() -> None:
    with pytest.raises(InputError, match=r"the slope .* of all scans together is not exact in 64 bits"):
        shared_scale([span_of(scan([0, 1], "0.12345678901234567890123"))])
    with pytest.raises(InputError, match="is no number of 64 bits"):
        Scale(Fraction(1, 3)).members()


def test_each_scan_may_keep_its_own_slope() -> None:
    for each in (scan([-5, 10], "0.1", "3"), scan([0, 60000], "7.5")):
        scale = own_scale(span_of(each))
        assert scale.slope == each.scale.slope
        assert to_integers(each, scale).min() == 0
    with pytest.raises(InputError, match="a: values from 0 to 65536"):
        own_scale(span_of(scan([0, 65536])))


def test_units_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="a is in HU and b in no known unit: pack each kind by itself"):
        shared_scale([span_of(scan([0, 1])), span_of(scan([0, 1], name="b", unit=""))])


def test_what_has_no_step_is_refused() -> None:
    floats = Scan("a", np.array([[[0.5, 1.25]]]))
    with pytest.raises(InputError, match="a holds values that are no multiples of a step: pack as float32"):
        span_of(floats)
    with pytest.raises(InputError, match="a is a colour image"):
        span_of(Scan("a", np.zeros((1, 2, 2, 3), np.uint8)))
    with pytest.raises(InputError, match="there are no scans"):
        shared_scale([])


def test_values_outside_a_scale_are_refused() -> None:
    for outside in (scan([-1, 3]), scan([0, 65536]), scan([0, 1], "0.5"), Scan("a", np.array([[[0.5]]]))):
        with pytest.raises(
            InputError, match="a holds values that are no integers of 16 bits with slope 1 and offset 0"
        ):
            to_integers(outside, Scale())


def test_floats_are_the_nearest() -> None:
    floats = to_floats(scan([1, 2, 3], "0.1", "-1024"))
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats.ravel(), np.array([0.1 - 1024, 0.2 - 1024, 0.3 - 1024], np.float32))
    with pytest.raises(InputError, match=r"beyond 3.4e38"):
        to_floats(Scan("a", np.array([[[1e39]]])))
    with pytest.raises(InputError, match="is a colour image"):
        to_floats(Scan("a", np.zeros((1, 2, 2, 3), np.uint8)))


def test_steps_are_greatest() -> None:
    assert greatest_step([Fraction(3, 2), Fraction(1, 4), Fraction(-5)]) == Fraction(1, 4)
    assert greatest_step([Fraction(0)]) == 0
    assert common_scale([Scale(Fraction(6), Fraction(1)), Scale(Fraction(4), Fraction(11))]) == Scale(
        Fraction(2), Fraction(1)
    )


def test_integers_that_would_not_be_exact_are_none() -> None:
    big = np.array([2**52], np.int64)
    assert in_scale(big, Scale(Fraction(4)), Scale()) is None
    assert in_scale(np.array([3]), Scale(), Scale(Fraction(2))) is None
    moved = in_scale(np.array([3]), Scale(Fraction(2), Fraction(5)), Scale(Fraction(1, 2)))
    assert moved is not None
    assert moved.tolist() == [22]


def test_scales_come_back_from_what_is_stored() -> None:
    scale = Scale(Fraction("0.684"), Fraction(-1024))
    assert Scale.of(scale.members(), "a") == scale
    assert Scale.of({"unit": "HU"}, "a") == Scale()
    for wrong in (
        {"slope": 0},
        {"slope": "1"},
        {"offset": float("nan")},
        {"slope": -1},
        {"offset": None},
        {"slope": True},
    ):
        with pytest.raises(InputError, match=r"a has the (slope|offset) .* repack it"):
            Scale.of(wrong, "a")
