"""A made world of shapes and sentences about it: "two red circles left of a blue square"."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cluster.imaging.pictures import encode_png
from tests.support.shards import npy_bytes, write_tar

SIDE = 32
COUNTS = ("one", "two")
COLOURS = {"red": (214, 50, 48), "green": (46, 150, 70), "blue": (48, 84, 208), "yellow": (236, 190, 40)}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
QUESTIONS = ("count", "colour", "shape", "relation", "other colour", "other shape")
ANSWERS = (len(COUNTS), len(COLOURS), len(SHAPES), len(RELATIONS), len(COLOURS), len(SHAPES))
HELD_OUT = {("red", "triangle"), ("blue", "circle"), ("green", "square"), ("yellow", "circle")}
"""Of the first thing: colours and shapes that are never shown together in training."""


class Scene(NamedTuple):
    """Numbers of answers to the questions."""

    number: int
    colour: int
    shape: int
    relation: int
    other_colour: int
    other_shape: int

    @property
    def text(self) -> str:
        """The sentence about it."""
        colours, noun = list(COLOURS), SHAPES[self.shape] + "s" * (self.number == 1)
        other = f"{colours[self.other_colour]} {SHAPES[self.other_shape]}"
        return f"{COUNTS[self.number]} {colours[self.colour]} {noun} {RELATIONS[self.relation]} a {other}"

    @property
    def is_held_out(self) -> bool:
        """Whether the training never shows the first thing in this colour."""
        return (list(COLOURS)[self.colour], SHAPES[self.shape]) in HELD_OUT


def scenes() -> list[Scene]:
    """All that there are."""
    return [Scene(*numbers) for numbers in itertools.product(*map(range, ANSWERS))]


def draw(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture (SIDE, SIDE, 3) of a scene, drawn fourfold and reduced: places and sizes are by chance."""
    scale, grey = 4, int(rng.integers(225, 250))
    picture = Image.new("RGB", (SIDE * scale, SIDE * scale), (grey, grey, grey))
    canvas = ImageDraw.Draw(picture)
    along = 0 if scene.relation < 2 else 1
    first_at, second_at = (0.27, 0.76) if scene.relation in (0, 2) else (0.73, 0.24)
    across = 0.5 + rng.uniform(-0.08, 0.08)
    for at, colour, shape, count in (
        (first_at, scene.colour, scene.shape, scene.number + 1),
        (second_at, scene.other_colour, scene.other_shape, 1),
    ):
        size = rng.uniform(0.125, 0.16) if count == 2 else rng.uniform(0.15, 0.2)
        places = [across] if count == 1 else [across - 0.22, across + 0.22]
        for place in places:
            centre = [0.0, 0.0]
            centre[along] = at + rng.uniform(-0.03, 0.03)
            centre[1 - along] = place + rng.uniform(-0.02, 0.02)
            _draw_shape(canvas, shape, list(COLOURS.values())[colour], centre, size, SIDE * scale)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: int, colour: tuple[int, int, int], centre: list[float], size: float, side: int
) -> None:
    x, y, r = centre[0] * side, centre[1] * side, size * side
    if shape == 0:
        canvas.ellipse((x - r, y - r, x + r, y + r), colour)
    elif shape == 1:
        canvas.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), colour)
    else:
        canvas.polygon([(x, y - r), (x - r, y + 0.8 * r), (x + r, y + 0.8 * r)], colour)


def pictures(chosen: list[Scene], seed: int) -> NDArray[np.uint8]:
    """Pictures (N, SIDE, SIDE, 3) of scenes."""
    rng = np.random.default_rng(seed)
    return np.stack([draw(scene, rng) for scene in chosen])


def write_world(folder: Path, count: int, seed: int = 0, vectors: dict[str, NDArray[np.float32]] | None = None) -> str:
    """Write ``count`` pictures of scenes that are not held out, with their sentences and vectors; return the folder."""
    rng = np.random.default_rng(seed)
    shown = [scene for scene in scenes() if not scene.is_held_out]
    members: list[tuple[str, bytes]] = []
    for number, row in enumerate(rng.integers(0, len(shown), count)):
        scene = shown[row]
        members += [
            (f"{number:05d}.png", encode_png(Image.fromarray(draw(scene, rng)))),
            (f"{number:05d}.txt", scene.text.encode()),
        ]
        if vectors is not None:
            members.append((f"{number:05d}.npy", npy_bytes(vectors[scene.text])))
    write_tar(folder / "shapes.tar", members)
    return str(folder)
