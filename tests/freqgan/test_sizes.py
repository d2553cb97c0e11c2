"""Sizes as people write them, in settings and on their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cluster.data.decoding import fit_image
from cluster.data.settings import ImagePolicy
from freqgan.sizes import Size, area, parse_size, size_setting, width_by_height
from launch.settings.load import dump_settings, load_settings
from tests.support.models import tiny_settings


@pytest.mark.parametrize(
    ("value", "size"), [(32, (32, 32)), ("32", (32, 32)), ("96x160", (96, 160)), ("33 x 47", (33, 47))]
)
def test_sizes_are_read_as_they_are_written(value: object, size: Size) -> None:
    assert parse_size(value) == size
    assert parse_size(size_setting(size)) == size
    assert width_by_height(size) == f"{size[1]} x {size[0]}"
    assert area(size) == size[0] * size[1]


@pytest.mark.parametrize("value", ["", "x", "96x", "x96", "96x160x3", "-1x4", "9.5x3", "²x³", None, True, 1.5, [4, 4]])
def test_what_is_no_size_is_refused_with_what_one_looks_like(value: object) -> None:
    with pytest.raises(ValueError, match="HEIGHTxWIDTH, such as 96x160"):
        parse_size(value)


@pytest.mark.parametrize(("value", "stored"), [("32x32", 32), (32, 32), ("24x40", "24x40"), ("24 x 40", "24x40")])
def test_settings_store_one_form_of_a_size(value: Any, stored: Any) -> None:
    settings = tiny_settings(image_size=value)
    assert settings.image_size == stored
    assert settings.size == parse_size(value)
    assert settings == type(settings).model_validate(settings.model_dump(mode="json"))


def test_settings_are_written_and_read_again(tmp_path: Any) -> None:
    settings = load_settings("smoke", ["image_size=24x40", "levels=1"])
    assert settings.size == (24, 40)
    (tmp_path / "own.yaml").write_text(dump_settings(settings))
    assert load_settings(str(tmp_path / "own.yaml"), []) == settings


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"image_size": "3x40"}, "3x40; each side has to be 4 to 4096"),
        ({"image_size": 5000}, "5000; each side has to be 4 to 4096"),
        ({"image_size": "wide"}, "HEIGHTxWIDTH"),
        ({"image_size": "8x64", "levels": 2}, "would be 2 pixels wide and 4 is the least; the largest that fits is 1"),
        (
            {"image_size": "32x30", "image_stage": {"companion": "flow"}},
            "2 halvings of image_size 32x30 are not whole (8 x 7.5)",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        tiny_settings(**changes)
    assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "rows", "columns"), [((40, 100), (0, 40), (20, 80)), ((100, 60), (30, 70), (0, 60))]
)
def test_the_largest_part_of_the_wanted_shape_is_cut_out(
    source: Size, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    part = image[slice(*rows), slice(*columns)].transpose(2, 0, 1)
    np.testing.assert_array_equal(fit_image(image, ImagePolicy(size=(40, 60))), part)
    assert fit_image(image, ImagePolicy(size=(20, 30))).shape == (3, 20, 30)
    random = fit_image(image, ImagePolicy(size=(40, 60), crop="random"), 7, "place")
    offset = next(
        offset for offset in range(61)
        if np.array_equal(random, (image[offset : offset + 40] if source[0] > 40 else image[:, offset : offset + 60])
                          .transpose(2, 0, 1))
    )  # fmt: skip
    assert 0 <= offset <= max(source[0] - 40, source[1] - 60)


def test_a_square_policy_is_one_number() -> None:
    assert ImagePolicy(size=(16, 16)) == ImagePolicy(size=16)
    assert ImagePolicy(size=(16, 24)).shape == (16, 24)
