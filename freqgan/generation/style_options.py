"""How ``freqgan style`` transfers a style, as the command line says it; checked without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from freqgan.bands import Band
from freqgan.errors import InputError, nearest
from freqgan.layouts import parse_layout

METHODS = ("bands", "gatys")
TRANSFORM = "dwt:db4"
STEPS = 200
STYLE_WEIGHT = 1e6
MOST_LEVELS = 10
USUAL_LEVELS = 4
COARSEST_SIDE = 8
"""Pixels of the shorter side of the coarsest low band, at least."""
LOW = "LL"
_STRENGTH = re.compile(r"(?:(?P<key>[^=]*)=)?(?P<value>[0-9]*\.?[0-9]+|[0-9]+\.)", re.ASCII)


@dataclass(frozen=True)
class Strengths:
    """How much of the style each level takes, from 0 (the content's bands) to 1 (the style's).

    Attributes:
        usual: of all that has none of its own.
        of_level: of the high bands of a level, 1 the finest.
        low: of the coarsest low band, which carries the colours; None for the usual one.

    """

    usual: float = 1.0
    of_level: tuple[tuple[int, float], ...] = ()
    low: float | None = None

    def of(self, band: Band) -> float:
        """Return the strength of ``band``."""
        if band.orientation == LOW:
            return self.usual if self.low is None else self.low
        return dict(self.of_level).get(band.level, self.usual)

    @property
    def is_full(self) -> bool:
        """Whether every band becomes the style's."""
        return {self.usual, self.low or self.usual, *dict(self.of_level).values()} == {1.0} and self.low != 0


@dataclass(frozen=True)
class StyleOptions:
    """What the options of ``freqgan style`` say; None where one was not given.

    Attributes:
        method: bands or gatys.
        transform: of the method bands, as the setting of that name.
        levels: resolutions of it.
        strength: texts such as "0.8", "1=0.5" and "LL=0".
        seed: of the directions of its transports.
        vgg: file of VGG19's weights, of the method gatys.
        steps: of L-BFGS.
        style_weight: against 1 of the content.

    """

    method: str = "bands"
    transform: str | None = None
    levels: int | None = None
    strength: tuple[str, ...] = ()
    seed: int | None = None
    vgg: str | None = None
    steps: int | None = None
    style_weight: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = nearest(self.method, list(METHODS))
            raise InputError(f"--method {self.method}: no method is called so{near}; there are {', '.join(METHODS)}")
        by_bands = self._given("transform", "levels", "strength", "seed")
        by_features = self._given("vgg", "steps", "style_weight")
        if wrong := by_features if self.method == "bands" else by_bands:
            other = METHODS[self.method == "bands"]
            raise InputError(f"{wrong}: of the method {other}, and --method is {self.method}; leave {wrong} out")
        if self.method == "gatys" and self.vgg is None:
            raise InputError(
                "--method gatys needs the weights of VGG19: give --vgg FILE, such as torchvision's vgg19-dcbb9e9d.pth; "
                "--method bands needs none"
            )
        self._check_bands()

    def _given(self, *names: str) -> str:
        """Return those of the options ``names`` that were given, as the command line calls them."""
        given = (name for name in names if getattr(self, name) not in (None, ()))
        return ", ".join("--" + name.replace("_", "-") for name in given)

    def _check_bands(self) -> None:
        """Raise InputError for a transform or strengths that cannot be."""
        spec = self.transform or TRANSFORM
        rings = re.fullmatch(r"radial:\s*([0-9]{1,4})\s*,.*", spec)
        parse_layout(spec, self.levels or (int(rings[1]) if rings else 1))
        for level, _ in self.strengths.of_level:
            most = self.levels or (int(rings[1]) if rings else MOST_LEVELS)
            if not 1 <= level <= most:
                raise InputError(f"--strength {level}=...: levels are 1 (finest) to {most}")

    @property
    def strengths(self) -> Strengths:
        """The strengths of all levels; InputError for texts that are none."""
        return parse_strengths(self.strength)

    def levels_for(self, *sizes: tuple[int, int]) -> int:
        """Return the levels: as given, else as many as leave sides of a few pixels to images of ``sizes``, (H, W)."""
        spec = self.transform or TRANSFORM
        if spec.startswith("radial:"):
            return int(spec.removeprefix("radial:").partition(",")[0])
        if self.levels is not None:
            return self.levels
        return usual_levels(*sizes)


def usual_levels(*sizes: tuple[int, int]) -> int:
    """Return 4 levels, or fewer where the low band of the smallest of ``sizes``, (H, W), were under 8 pixels."""
    side = min(map(min, sizes))
    return max(1, min(USUAL_LEVELS, (side // COARSEST_SIDE).bit_length() - 1))


def parse_strengths(texts: Sequence[str]) -> Strengths:
    """Return the strengths that ``texts`` name: VALUE of all, LEVEL=VALUE of a level, LL=VALUE of the low band.

    Raises:
        InputError: what is none of these, is above 1, or is given twice.

    """
    values: dict[str, float] = {}
    for text in texts:
        match = _STRENGTH.fullmatch(text.strip())
        key = (match["key"] or "").strip() if match else "?"
        is_level = key.isascii() and key.isdecimal()
        if match is None or not (is_level or key == LOW or match["key"] is None):
            raise InputError(
                f"--strength {text}: write VALUE, LEVEL=VALUE or LL=VALUE, from 0 to 1: for example 0.8, 1=0.5 or LL=0"
            )
        value, name = float(match["value"]), str(int(key)) if is_level else key
        if not (math.isfinite(value) and value <= 1):
            raise InputError(f"--strength {text}: it is from 0 (the content as it is) to 1 (all of the style)")
        if name in values:
            what = f"level {name}" if is_level else name or "all levels"
            raise InputError(f"--strength {text}: {what} has a strength already, {values[name]:g}; give each once")
        values[name] = value
    levels = tuple((int(name), value) for name, value in values.items() if name not in ("", LOW))
    return Strengths(values.get("", 1.0), levels, values.get(LOW))
