"""Files of places and deadlines as a person writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from freqgan.errors import InputError
from launch.settings.places import load_places, seconds_until

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_places_are_read(tmp_path: Path) -> None:
    path = tmp_path / "places.yaml"
    path.write_text("berlin: {nodes: 4xH100, price: 2.5}\nohio: {nodes: '2xT4:spot', available: 0.8, until_hours: 9}\n")
    places = load_places(str(path))
    assert list(places) == ["berlin", "ohio"]
    assert (places["berlin"].price_of("H100"), places["berlin"].available) == (2.5, 1.0)
    assert (places["ohio"].price_of("T4"), places["ohio"].until_hours) == (0.0, 9.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds no places: write lines like `berlin: "),
        ("[1]", r"holds no places"),
        ("berlin: 4xH100", r"berlin: '4xH100' is no place: write berlin: \{nodes"),
        ("berlin: {price: 2}", r"berlin: .*nodes"),
        ("berlin: {nodes: 4xH10}", r"berlin: .*no accelerator is called 'H10' \(did you mean H100"),
        ("berlin: {nodes: 4xH100, prise: 2}", r"berlin: .*prise.*did you mean price"),
        ("berlin: {nodes: 4xH100, price: cheap}", r"berlin: .*price"),
        ("berlin: {nodes: 4xH100, price: -1}", r"berlin: price: H100: -1: give 0 or more"),
        (
            "berlin: {nodes: '1xH100,1xT4', price: {H100: 1}}",
            r"there are prices for H100, and devices of type H100, T4",
        ),
        ("berlin: {nodes: 4xH100, available: 0}", r"berlin: available"),
        ("berlin: {nodes: 4xH100, available: 1.5}", r"berlin: available"),
        ("berlin: {nodes: 4xH100, interruptions: -1}", r"berlin: interruptions"),
        ("berlin: {nodes: 4xH100, from_hours: 5, until_hours: 5}", r"until_hours: 5 is not after from_hours, 5"),
        ("berlin: {nodes: 4xH100", r"is no valid YAML: .*line"),
    ],
)
def test_places_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "places.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        load_places(str(path))
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("36h", 36), ("0.5h", 0.5), ("3d", 72), ("2026-03-02T08:00+00:00", 24), ("2026-03-01T10:00+01:00", 1)],
)
def test_deadlines_are_read(text: str, hours: float) -> None:
    assert seconds_until(text, NOW) == 3600 * hours


def test_a_time_without_a_zone_is_that_of_this_machine() -> None:
    local = NOW.astimezone().replace(tzinfo=None)
    assert seconds_until(local.replace(day=local.day + 1).isoformat(), NOW) == pytest.approx(24 * 3600, abs=3600)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Monday", "give hours"),
        ("-3h", "give hours"),
        ("h", "give hours"),
        ("2026-13-01", "give hours"),
        ("0h", r"is 0\.0 hours from now"),
        ("2026-02-28T08:00+00:00", r"is -24\.0 hours from now: give a time within 100 years"),
        ("9" * 400 + "d", "give|hours from now"),
    ],
)
def test_deadlines_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        seconds_until(text, NOW)
