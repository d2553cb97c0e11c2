"""Stores that deviate from AWS: each is spoken to in its own spelling, or refused before anything is trusted to it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage.folder import Folder, open_folder
from cluster.storage.lease import Lease
from cluster.storage.s3_probe import opaque_tag, spelled
from cluster.storage.storage_check import race
from freqgan.errors import InputError
from tests.support.commands import run_command
from tests.support.deviating_s3 import DEVIATIONS, DeviatingProxy, running_deviation
from tests.support.s3_server import BUCKET

WORKING = [name for name, (_, _, outcome, _) in DEVIATIONS.items() if outcome == "works"]
REFUSED = [name for name, (_, _, outcome, _) in DEVIATIONS.items() if outcome == "refused"]
SPELLINGS = {"bare tags": "bare", "only weak tags": "weak"}
"""Where it is not the one of HTTP."""


Store = tuple[DeviatingProxy, Folder]


@pytest.fixture
def deviating(request: pytest.FixtureRequest, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store that deviates as the parameter says, and an empty folder in it."""
    with running_deviation(s3_server, request.param) as (proxy, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield proxy, open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.mark.parametrize("deviating", WORKING, indirect=True)
def test_a_store_is_spoken_to_in_its_own_spelling(deviating: Store, request: pytest.FixtureRequest) -> None:
    _, folder = deviating
    assert folder.profile().tag_form == SPELLINGS.get(request.node.callspec.params["deviating"], "quoted")
    with Lease(folder, "LEASE", "run x", duration_s=30) as lease:
        first = folder.write_if("name", b"one", None)
        assert folder.read_tagged("name") == (b"one", first)
        assert folder.write_if("name", b"two", None) is None
        second = folder.write_if("name", b"two", first)
        assert second not in (None, first)
        assert folder.write_if("name", b"three", first) is None
        assert folder.update("name", lambda before: (before or b"") + b"+") == b"two+"
        lease._good_until_s = 0
        lease.check()
        assert lease.epoch == 1
    folder.write("other", b"other")
    assert folder.list() == ["LEASE", "name", "other"]  # no scratch objects are left
    with folder.open("other") as file:
        assert file.read() == b"other"
    folder.delete_tree()
    assert folder.list() == []


UPLOADED = ("lost end of an upload", "checksums refused", "framing of checksums stored", "only weak tags")


@pytest.mark.parametrize("deviating", UPLOADED, indirect=True)
def test_large_objects_are_uploaded_whole(deviating: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = deviating
    monkeypatch.setattr("cluster.storage.folder.PART_BYTES", 5 * 2**20)
    content = os.urandom(10 * 2**20 + 1)
    (tmp_path / "large").write_bytes(content)
    folder.upload(tmp_path / "large", "large")
    folder.write("large-too", content)
    folder.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == folder.read("large-too") == content


@pytest.mark.parametrize("deviating", ["bare tags", "409 for 412", "409 at first"], indirect=True)
def test_of_many_writers_one_wins(deviating: Store) -> None:
    _, folder = deviating
    tag: str | None = None
    for number in range(2):
        won = race(folder, "name", tag, number, writers=4)
        assert len(won) == 1
        tag = won[0]


@pytest.mark.parametrize("deviating", REFUSED, indirect=True)
def test_a_store_that_cannot_hold_a_run_is_refused_with_its_fault(
    deviating: Store, request: pytest.FixtureRequest
) -> None:
    proxy, folder = deviating
    fault = DEVIATIONS[request.node.callspec.params["deviating"]][3]
    with pytest.raises(InputError, match=r"lacks what a run needs: .* `freqgan storage check ") as refusal:
        Lease(folder, "LEASE", "run x", duration_s=30).__enter__()
    said = str(refusal.value)
    assert fault in said
    assert f"the store at http://127.0.0.1:{proxy.server_port}" in said
    assert "\n" not in said
    asked = len(proxy.seen)
    with pytest.raises(InputError, match="lacks what a run needs"):
        folder.write_if("name", b"one", None)
    assert len(proxy.seen) == asked  # it is tried out once
    folder.write("name", b"one")  # pictures and shards may be written there all the same
    assert folder.read("name") == b"one"


@pytest.mark.parametrize(
    ("header", "tag"), [('"abc"', "abc"), ('W/"abc"', "abc"), ("abc", "abc"), ('"abc-7"', "abc-7"), (' "" ', "")]
)
def test_spellings_of_entity_tags(header: str, tag: str) -> None:
    assert opaque_tag(header) == tag
    assert [opaque_tag(spelled(tag, form)) for form in ("quoted", "bare", "weak")] == [tag] * 3


@pytest.mark.parametrize("deviating", ["bare tags"], indirect=True)
def test_the_command_shows_what_was_tried(deviating: Store, capsys: pytest.CaptureFixture[str]) -> None:
    proxy, folder = deviating
    outcome = run_command(capsys, "storage", "check", f"{folder.url}/[runs]")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith(f"{folder.url}/[runs] on http://127.0.0.1:{proxy.server_port} (")
    rows = [line.split(maxsplit=1)[0] for line in outcome.out.splitlines()[3:] if line.strip(" ─")]
    assert rows == ["yes"] * 13
    assert "the tag is written bare" in outcome.out
    assert folder.list() == []


@pytest.mark.parametrize("deviating", ["If-Match ignored"], indirect=True)
def test_the_command_refuses_what_cannot_hold_a_run(deviating: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = deviating
    outcome = run_command(capsys, "storage", "check", folder.url)
    assert outcome.code == 2, outcome
    assert " NO " in outcome.out
    assert f"error: {folder.url} cannot hold a run" in outcome.err
    assert "refuse that where it has changed (the condition is ignored)" in outcome.err


def test_a_disk_is_tried_out_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_command(capsys, "storage", "check", tmp_path / "new" / "runs")
    assert outcome.code == 0, outcome
    assert "runs on disk" in outcome.out
    assert outcome.out.count(" yes ") == 4
    assert list(tmp_path.iterdir()) == []
