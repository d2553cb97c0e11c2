"""A small run that the tests of the live view share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import browser
from tests.support.live_runs import train_with_folder

__all__ = ["browser"]


@pytest.fixture(scope="session")
def trained(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with a checkpoint and a grid after the third and the last."""
    return train_with_folder(tmp_path_factory.mktemp("live") / "run", small_shards)
