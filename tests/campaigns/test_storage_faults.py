"""Faults on the way from a real S3 server: the cases of :mod:`tests.campaigns.storage_faults`, with less patience."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from cluster.storage.s3_reads import _Read
from cluster.storage.timeouts import ReadTimeouts
from tests.campaigns.storage_faults import CASES, Bench, Case, bench, outcome

IMPATIENT = ReadTimeouts(stall_s=0.5, budget_s=2.0)
HOPELESS = ReadTimeouts(stall_s=0.5, budget_s=0.2)
"""Where nothing ever comes."""


@pytest.fixture(scope="module")
def faulty(s3_server: str) -> Iterator[Bench]:
    with bench(s3_server) as prepared:
        yield prepared


LONG = {"503, for ever"}
"""The client's own retries of it take ten seconds; a stall for ever is given up in the same way."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.long] * (case.name in LONG)) for case in CASES]
)
def test_nothing_wrong_is_delivered(case: Case, faulty: Bench) -> None:
    right, words, _ = outcome(case, faulty, patience_of(case))
    assert right, words


def patience_of(case: Case) -> ReadTimeouts:
    if case.says.endswith("gave up"):
        return HOPELESS
    return ReadTimeouts() if case.always is None and len(case.faults(lambda: None)) > 1 else IMPATIENT


def test_a_read_that_gets_on_is_never_given_up() -> None:
    """Its budget is for the time without a byte."""
    read = _Read(None, "bucket", "key", io.BytesIO(), ReadTimeouts(budget_s=0.0))
    assert read.is_over(None)  # type: ignore[arg-type]  # it does not look
    read.progress_s += 60
    assert not read.is_over(None)  # type: ignore[arg-type]


def test_what_comes_again_and_again_is_no_progress() -> None:
    """As from a server that knows no ranges and always closes at the same byte."""
    read = _Read(None, "bucket", "key", io.BytesIO(), ReadTimeouts(budget_s=60.0))
    read.take(b"half")
    read.progress_s -= 61
    read._begin_again()
    read.take(b"half")
    assert read.is_over(None)  # type: ignore[arg-type]  # it does not look
    read.take(b"more")
    assert not read.is_over(None)  # type: ignore[arg-type]
