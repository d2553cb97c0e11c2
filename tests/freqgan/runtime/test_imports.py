"""The collector of garbage is held back in a block of imports, and as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from freqgan.runtime.imports import uncollected


@pytest.fixture(params=[True, False])
def enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether it collects before the block; it does after the test."""
    (gc.enable if request.param else gc.disable)()
    yield request.param
    gc.enable()


def test_the_collector_waits_and_is_as_it_was(enabled: bool) -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() == enabled


def test_the_collector_is_as_it_was_after_an_import_that_fails(enabled: bool) -> None:
    with pytest.raises(ImportError), uncollected():
        import freqgan.nowhere  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled() == enabled
