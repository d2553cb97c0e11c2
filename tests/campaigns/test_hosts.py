"""Two hosts with a link that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.hosts import FOR_EVER, Cut, told_over_two_hosts
from tests.support.namespaces import two_hosts
from tests.support.runs import tiny_run_settings, trained

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def may_make_hosts() -> None:
    try:
        with two_hosts():
            pass
    except PermissionError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.mark.long
@pytest.mark.usefixtures("may_make_hosts")
def test_a_host_that_is_cut_off_for_ever_costs_the_run_nothing(small_shards: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"plan": {"bands": ["LL1", "HL1"]}, "max_steps": 20, "window": 2, "snapshot_every": 2}
    quiet = trained(tiny_run_settings(tmp_path / "quiet", small_shards, **small))[2]
    settings = tiny_run_settings(tmp_path / "run", small_shards, executor="ray", **small)
    told = told_over_two_hosts(settings, Cut(after_step=5, outage_s=FOR_EVER))
    hosts = [set(placed.values()) for placed in told.hosts()]
    assert len(hosts[0]) == 2, told.errors  # actors were on both
    assert told.noticed_s is not None, told.errors
    assert (told.code, told.digest) == (0, quiet), told.errors
