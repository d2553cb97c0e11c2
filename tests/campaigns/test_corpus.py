"""The short version of ``make corpus``: images that packages bring along, and those that tests write."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.corpus import (
    EQUAL,
    NEARLY,
    REFUSED,
    WRONG,
    Verdict,
    compared,
    folder_verdicts,
    main,
    table,
    verdict,
)
from tests.support.jpegs import JUNK, RARE, saved
from tests.support.pngs import FORMS, GREY, SAMPLES_A_PIXEL, transparent, written

PACKAGES = ("matplotlib", "skimage", "networkx", "sympy", "werkzeug")


def test_images_that_packages_bring_along() -> None:
    folders = [Path(spec.origin).parent for name in PACKAGES if (spec := find_spec(name)) and spec.origin]
    suffixes = {".jpg", ".png", ".webp"}
    verdicts = [one for folder in folders for one in folder_verdicts(folder, suffixes)]
    assert len(verdicts) > 20
    assert {one.kind for _, one in verdicts} <= {EQUAL, NEARLY}, verdicts


@pytest.mark.parametrize(("colour", "bits"), FORMS)
def test_pngs_of_every_form(colour: int, bits: int) -> None:
    samples = np.random.default_rng(0).integers(0, 2**bits, (9, 13, SAMPLES_A_PIXEL[colour]))
    chunks = [transparent(int(samples[0, 0, 0]))] if colour == GREY else []
    found = verdict(written(samples, colour, bits, *chunks))
    assert found is not None
    assert found.kind in (EQUAL, NEARLY)


def test_rare_jpegs_and_those_with_junk() -> None:
    files = [*RARE.values(), *(junk(saved()) for junk in JUNK.values())]
    assert [verdict(data) for data in files] == [Verdict(EQUAL)] * len(files)


def test_what_is_wrong_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert compared(black, black) == Verdict(EQUAL)
    assert compared(black + np.uint8(8), black) == Verdict(NEARLY, "8 levels from Pillow")
    assert compared(black + np.uint8(9), black) == Verdict(WRONG, "9 levels from Pillow")
    assert compared(black[:2], black) == Verdict(WRONG, "(2, 4, 3) and not (4, 4, 3)")
    lines = list(table([("a", Verdict(WRONG)), ("b", Verdict(REFUSED, "image is 7")), ("c", Verdict(REFUSED, "is 8"))]))
    assert lines == ["     2 refused", "     1 wrong", "     2 refused: is N"]
    assert verdict(b"no image") is None
    told = "image is damaged or cut off (Premature end of JPEG file): replace or remove it"
    assert verdict(saved()[:-30]) == Verdict(REFUSED, f"{told} (Pillow cannot decode it either)")
    (tmp_path / "a.jpg").write_bytes(saved())
    (tmp_path / "b.txt").write_bytes(b"no image")
    assert main(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == ["1 images that Pillow opens", "     1 equal"]
