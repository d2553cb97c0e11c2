"""A short form of the campaign on object stores, on a Ceph radosgw where its programs are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.campaigns.chaos.racing import racing_case
from tests.campaigns.object_stores import asked, found_out, killed_and_resumed, store
from tests.support.commands import run_command
from tests.support.radosgw import root
from tests.support.s3_server import BUCKET, STORE_VARIABLE

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(root() is None, reason="Ceph's programs are not here: `make ceph` unpacks them, with apt"),
]


@pytest.fixture(scope="module")
def radosgw() -> Iterator[str]:
    with store("radosgw") as endpoint:
        yield endpoint


def test_a_run_on_radosgw_is_killed_and_gives_the_bytes_of_a_disk(
    radosgw: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found_out("radosgw")
    assert killed_and_resumed(tmp_path, 1) == 0
    assert asked(tmp_path, f"s3://{BUCKET}/killed", partial(run_command, capsys)) == 0


@pytest.mark.long
def test_of_two_trainings_of_one_run_on_radosgw_one_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, "radosgw")
    row = racing_case(tmp_path, 4)
    assert (row.wrong, row.moments) == ([], 2)
