"""The examples of the documentation do what they show."""

from __future__ import annotations

import doctest

from tests.support.commands import ROOT


def test_the_page_on_transforms() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "transforms.md"), module_relative=False)
    assert failed == 0
    assert tried > 30
