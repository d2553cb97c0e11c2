"""Pictures of things: icons of the fonts that the qtawesome package carries in itself, in colours drawn at random.

The fonts are free: Font Awesome and Elusive (SIL OFL 1.1), Material Design Icons and Remix Icon (Apache 2.0), Phosphor
(MIT).
"""

from __future__ import annotations

import colorsys
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from freqgan.errors import InputError
from freqgan.seeds import derive_seed

DESIGNS: dict[str, tuple[tuple[str, str], ...]] = {
    "bell": (("fontawesome6-solid", "bell"), ("materialdesignicons6", "bell"), ("phosphor", "bell-fill")),
    "cup": (("fontawesome6-solid", "mug-saucer"), ("materialdesignicons6", "coffee"), ("remixicon", "cup-fill")),
    "fish": (("fontawesome6-solid", "fish"), ("materialdesignicons6", "fish")),
    "heart": (("fontawesome6-solid", "heart"), ("phosphor", "heart-fill"), ("remixicon", "heart-fill")),
    "house": (("elusiveicons", "home"), ("fontawesome6-solid", "house"), ("materialdesignicons6", "home")),
    "plane": (("elusiveicons", "plane"), ("fontawesome6-solid", "plane"), ("remixicon", "plane-fill")),
    "star": (("fontawesome6-solid", "star"), ("materialdesignicons6", "star"), ("remixicon", "star-fill")),
    "tree": (("fontawesome6-solid", "tree"), ("phosphor", "tree-evergreen-fill")),
    "umbrella": (
        ("fontawesome6-solid", "umbrella"),
        ("materialdesignicons6", "umbrella"),
        ("remixicon", "umbrella-fill"),
    ),
}
"""Fonts and names of the icons of a class: filled ones, whose shapes are learned in minutes."""
SIZE = 32
DETAIL = 4
"""Icons are drawn so many times larger, turned, and averaged down."""
PER_CLASS = 400
MOST_DEGREES = 8
FILLED = 0.8
"""Share of the picture's side that an icon fills at most."""


class Icon(NamedTuple):
    """A character of a font."""

    font: Path
    character: str


def icon_pictures() -> Iterator[tuple[str, Image.Image]]:
    """Yield PER_CLASS pictures of SIZE x SIZE of every class with its name, the same every time.

    Raises:
        InputError: qtawesome or one of its fonts is not there.

    """
    icons = _icons_by_class(_font_folder())
    for label, designs in icons.items():
        random = _Random(label)
        for number in range(PER_CLASS):
            yield label, _picture(designs[number % len(designs)], random)


def _font_folder() -> Path:
    package = importlib.util.find_spec("qtawesome")
    if package is None or not package.submodule_search_locations:
        raise InputError("the demo's icons are those of qtawesome: pip install 'freqgan[demo]'")
    return Path(next(iter(package.submodule_search_locations))) / "fonts"


def _icons_by_class(folder: Path) -> dict[str, list[Icon]]:
    return {label: [_icon(folder, *design) for design in designs] for label, designs in DESIGNS.items()}


def _icon(folder: Path, font: str, name: str) -> Icon:
    file, names = _only(folder, f"{font}*.ttf"), _only(folder, f"{font}*charmap*.json")
    codes: dict[str, str] = json.loads(names.read_text("utf-8"))
    if name not in codes:
        raise InputError(f"{names} has no icon {name!r}: install a version of qtawesome from 1.4 on and before 2")
    return Icon(file, chr(int(codes[name], 16)))


def _only(folder: Path, pattern: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"this version of qtawesome has no {pattern} in {folder}: pip install 'qtawesome>=1.4'")
    return paths[-1]


class _Random:
    """Numbers from 0 to 1 that follow from a name alone: NumPy promises never to change PCG64's raw output."""

    def __init__(self, name: str) -> None:
        self._bits = np.random.PCG64(derive_seed("icons", name))

    def between(self, low: float, high: float) -> float:
        share = float(self._bits.random_raw()) / 2**64
        return low + share * (high - low)


def _picture(icon: Icon, random: _Random) -> Image.Image:
    """Return one icon, turned a little, in one colour on a ground of another: dark on light or light on dark."""
    side = SIZE * DETAIL
    shape = _drawn(icon, side, FILLED * random.between(0.8, 1))
    turned = shape.rotate(random.between(-MOST_DEGREES, MOST_DEGREES), Image.Resampling.BICUBIC)
    cover = np.asarray(turned.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64)[..., None] / 255
    hue, light = random.between(0, 1), random.between(0, 1) < 0.5
    ground = _colour(hue, random.between(0.2, 0.8), random.between(0.8, 1) if light else random.between(0.1, 0.35))
    other = hue + random.between(0.3, 0.7)
    ink = _colour(other, random.between(0.4, 1), random.between(0.1, 0.4) if light else random.between(0.85, 1))
    return Image.fromarray(np.rint(cover * ink + (1 - cover) * ground).astype(np.uint8))


def _drawn(icon: Icon, side: int, filled: float) -> Image.Image:
    """Return the icon in the middle of ``side`` x ``side`` pixels, its longer side ``filled`` of that."""
    font = ImageFont.truetype(str(icon.font), side)
    left, top, right, bottom = font.getbbox(icon.character)
    font = ImageFont.truetype(str(icon.font), int(side * filled * side / max(right - left, bottom - top, 1)))
    left, top, right, bottom = font.getbbox(icon.character)
    image = Image.new("L", (side, side))
    place = ((side - right - left) / 2, (side - bottom - top) / 2)
    ImageDraw.Draw(image).text(place, icon.character, font=font, fill=255)
    return image


def _colour(hue: float, saturation: float, value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
