"""The short version of ``make every-transform``: every transform and kind of plan trains, resumes and generates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.every_transform import VARIANTS, is_right, try_variant, write_grey_16_shards
from tests.support.runs import write_small_shards


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every-transform")
    write_small_shards(folder)
    write_grey_16_shards(folder)
    return folder


SHORT = (
    "fft:meyer", "S_q = 2, W_q = 1", "cycles: 2", "strict nesting, packets", "odd size, dct",
    "grey, 16 bits, radial, per band",
)  # fmt: skip
"""Between them they have a transform of each family and a plan of each kind."""


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.long] * (name not in SHORT)) for name in VARIANTS]
)
def test_it_trains_resumes_and_generates(variant: str, data: Path, tmp_path: Path) -> None:
    for name in ("small", "grey-16"):
        (tmp_path / name).symlink_to(data / name)
    row = try_variant(variant, tmp_path, steps=3)
    assert is_right(row), row
