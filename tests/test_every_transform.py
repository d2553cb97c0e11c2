"""The short version of ``make every-transform``: every transform and kind of plan trains, resumes and generates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.every_transform import VARIANTS, is_right, try_variant, write_grey_16_shards
from tests.runs import write_small_shards


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every-transform")
    write_small_shards(folder)
    write_grey_16_shards(folder)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_resumes_and_generates(variant: str, data: Path, tmp_path: Path) -> None:
    for name in ("small", "grey-16"):
        (tmp_path / name).symlink_to(data / name)
    row = try_variant(variant, tmp_path, steps=3)
    assert is_right(row), row
