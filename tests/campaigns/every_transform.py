"""A small training with every transform and every kind of plan: it runs, resumes to the same bytes, and generates.

``python -m tests.campaigns.every_transform [STEPS]`` (``make every-transform``) prints a table and ends with 1 if a row
fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from cluster.data.packing import pack
from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.generation.synthesiser import Generated, Synthesiser
from launch.commands.generate import generate
from launch.settings.image_request import ImageRequest
from tests.support.runs import tiny_run_settings, trained, write_small_shards

STEPS = 60
LARGEST_DEVIATION = 1e-5
TWO_LEVELS: dict[str, Any] = {"levels": 2}
STRICT: dict[str, Any] = {"plan": {"strict_nesting": True}}
GREY_16: dict[str, Any] = {"channels": 1, "bit_depth": 16}
VARIANTS: dict[str, dict[str, Any]] = {
    "dwt:haar": {},
    "dwt:db2": {"transform": "dwt:db2"},
    "dwt:bior4.4": {"transform": "dwt:bior4.4"},
    "dct": {"transform": "dct"},
    "fft:shannon": {"transform": "fft:shannon"},
    "fft:meyer": {"transform": "fft:meyer"},
    "radial:2,3": {"transform": "radial:2,3", **TWO_LEVELS},
    "radial:2,3, two rings to a GAN": {"transform": "radial:2,3", "plan": {"high_gans": {1: 1, 2: 1}}, **TWO_LEVELS},
    "S_q = 2, W_q = 1": {"plan": {"low_gans": {1: 2, 2: 2}, "high_gans": {1: 1, 2: 1}}, **TWO_LEVELS},
    "cycles: 2": {"plan": {"cycles": 2}},
    "packets": {"packets": {1: 1}, "noise": {"dimensions": 128}},
    "strict nesting": {**STRICT, **TWO_LEVELS},
    "strict nesting, dct": {"transform": "dct", **STRICT, **TWO_LEVELS},
    "strict nesting, radial": {"transform": "radial:2,3", **STRICT, **TWO_LEVELS},
    "strict nesting, packets": {
        "packets": {2: 1}, "noise": {"dimensions": 128}, "image_size": 32, **STRICT, **TWO_LEVELS,
    },
    "odd size, dct": {"transform": "dct", "image_size": 19},
    "odd size, radial": {"transform": "radial:2,3", "image_size": 23, **TWO_LEVELS},
    "grey, 16 bits": GREY_16,
    "grey, 16 bits, radial, per band": {
        "transform": "radial:2,3", "image_stage": {"alpha": "per_band"}, **GREY_16, **TWO_LEVELS,
    },
}  # fmt: skip


class Row(NamedTuple):
    """What came of one variant.

    Attributes:
        resumes: whether the bytes of a training in two parts are those of one in one go.
        spread: standard deviation of generated pixels, over the whole range: 0 is a model that makes nothing.
        deviation: with strict nesting, the largest difference between the sub-images that were generated and those of
            the generated image, for pixels in [-1, 1].

    """

    resumes: bool
    spread: float
    deviation: float | None


def write_grey_16_shards(folder: Path) -> Path:
    """Shards of 96 grey 16-bit PNGs, 16 x 16: ramps with levels between those of 8 bits."""
    rng = np.random.default_rng(0)
    (folder / "grey").mkdir(parents=True)
    for i in range(96):
        ramp = np.add.outer(np.linspace(0, rng.uniform(0, 3e4), 16), np.linspace(0, rng.uniform(0, 3e4), 16))
        Image.fromarray((ramp + rng.uniform(0, 5e3)).astype(np.uint16)).save(folder / "grey" / f"{i:03d}.png")
    pack(str(folder / "grey"), str(folder / "grey-16"))
    return folder / "grey-16"


def try_variant(name: str, folder: Path, steps: int) -> Row:
    """Trains it in one go and in two parts, and generates."""
    changes: dict[str, Any] = {"max_steps": steps, "checkpoint_every": max(2, steps // 3), "images": 8 * steps}
    changes |= VARIANTS[name]
    shards = folder / ("grey-16" if "bit_depth" in changes else "small")
    whole, parts = folder / "whole", folder / "parts"
    digest = trained(tiny_run_settings(whole, shards, **changes))[2]
    trained(tiny_run_settings(parts, shards, **changes | {"max_steps": steps * 2 // 5}))
    resumes = trained(tiny_run_settings(parts, shards, **changes))[2] == digest
    generate(ImageRequest(str(whole), str(folder / "images"), count=8, seed=1), print)
    with Image.open(folder / "images" / "00003.png") as image:
        pixels = np.asarray(image)
    wanted = np.uint16 if "bit_depth" in changes else np.uint8
    assert pixels.dtype == wanted, f"{name}: generated images are {pixels.dtype}"
    synthesiser = synthesiser_of(find_checkpoint(str(whole)))
    made = synthesiser.sample(0, 8)
    strict = synthesiser.settings.plan.strict_nesting
    return Row(resumes, float(pixels.std() / np.iinfo(wanted).max), nesting(synthesiser, made) if strict else None)


def nesting(synthesiser: Synthesiser, made: Generated) -> float:
    """Of sub-images that were generated and those of the chain's images, the largest difference; see :class:`Row`."""
    chain = synthesiser.chain
    again = chain.transform.analyse(made.frequency)
    raw = chain.statistics.denormalise_all(made.sub_images)
    return max(float((again[band] - x).abs().max()) for band, x in raw.items())


def is_right(row: Row) -> bool:
    """Whether a variant did all that it should."""
    return row.resumes and row.spread > 0 and (row.deviation is None or row.deviation <= LARGEST_DEVIATION)


def main(steps: int) -> int:
    """The table; 0 when every row is right."""
    torch.set_num_threads(1)
    print(f"{steps} steps; nesting: largest difference of coefficients, for pixels in [-1, 1]")
    print(f"{'':34} {'resumes':>8} {'spread':>7} {'nesting':>8}")
    wrong = 0
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            write_small_shards(Path(folder))
            write_grey_16_shards(Path(folder))
            row = try_variant(name, Path(folder), steps)
        wrong += not is_right(row)
        deviation = "" if row.deviation is None else f"{row.deviation:.1e}"
        print(f"{name:34} {'yes' if row.resumes else 'NO':>8} {row.spread:7.3f} {deviation:>8}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS))
