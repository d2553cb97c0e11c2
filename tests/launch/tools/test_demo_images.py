"""Training images for the demo: of packages that are installed, the same every time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.tools import demo_images, icons, photographs

needs_icons = pytest.mark.skipif(find_spec("qtawesome") is None, reason="needs qtawesome, of the extra demo")
Capsys = pytest.CaptureFixture[str]


def written_twice(kind: str, folder: Path) -> list[Path]:
    """The files of one of two writings, whose bytes are the same."""
    counts = [demo_images.write_demo_images(kind, str(folder / name)) for name in ("a", "b")]
    files = sorted((folder / "a").glob("*/*"))
    assert counts == [len(files)] * 2
    for path in files:
        assert path.read_bytes() == (folder / "b" / path.relative_to(folder / "a")).read_bytes()
    return files


def test_photographs_are_cut_into_crops_that_show_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(photographs, "CROPS_PER_PHOTOGRAPH", 5)
    files = written_twice("photographs", tmp_path)
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == ["chelsea", "coffee", "gravel", "ihc"]
    assert len(files) == 4 * 5
    for path in files:
        crop = Image.open(path)
        assert crop.size == (64, 64)
        assert np.asarray(crop.convert("L")).std() >= photographs.MIN_DEVIATION


@needs_icons
def test_icons_are_two_colours_in_a_class_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icons, "PER_CLASS", 4)
    files = written_twice("icons", tmp_path)
    assert sorted({path.parent.name for path in files}) == sorted(icons.DESIGNS)
    assert len(files) == 4 * len(icons.DESIGNS)
    for path in files:
        pixels = np.asarray(Image.open(path)).reshape(-1, 3).astype(float)
        assert pixels.shape == (32 * 32, 3)
        centred = pixels - pixels.mean(axis=0)
        shares = np.linalg.svd(centred, compute_uv=False) ** 2
        assert shares[0] > 0.999 * shares.sum(), f"{path} has more than two colours and their mixtures"


@needs_icons
def test_every_class_has_several_designs() -> None:
    by_class = icons._icons_by_class(icons._font_folder())
    drawn = {label: {icons._drawn(icon, 64, 0.9).tobytes() for icon in designs} for label, designs in by_class.items()}
    assert min(map(len, drawn.values())) >= 2


@pytest.mark.parametrize("arguments", [[], ["icons"], ["paintings", "x"], ["icons", "x", "y"]])
def test_other_words_are_answered_with_the_usage(arguments: list[str], capsys: Capsys) -> None:
    with pytest.raises(SystemExit) as leaving:
        demo_images.main(arguments)
    assert leaving.value.code == 2
    assert "usage: python -m launch.tools.demo_images icons|photographs DIR" in capsys.readouterr().err


def test_images_go_into_a_folder_of_their_own(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "mine.txt").write_text("")
    for place, expected in ((tmp_path, "is not empty"), (tmp_path / "mine.txt" / "x", "cannot write to")):
        with pytest.raises(SystemExit) as leaving:
            demo_images.main(["icons", str(place)])
        assert leaving.value.code == 2
        assert expected in capsys.readouterr().err
