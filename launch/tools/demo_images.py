"""Training images for the demo: ``python -m launch.tools.demo_images DIR`` cuts crops from photographs.

The photographs are those that the scikit-image package carries in itself, so nothing is downloaded. Every
photograph is a class, in a folder of its own; a crop that is nearly flat shows nothing and is not taken.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from freqgan.errors import FreqganError, InputError
from freqgan.seeds import derive_seed

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "gravel.png", "ihc.png")
SIZE = 64
CROPS_PER_PHOTOGRAPH = 750
JPEG_QUALITY = 95
MIN_DEVIATION = 15.0
"""Grey levels of 255; below it lie sky, blurred background and black."""

TRIES_PER_CROP = 20


def write_demo_images(destination: str) -> int:
    """Write the crops as JPEG files into ``destination``; return how many. The same crops every time.

    Raises:
        InputError: scikit-image or one of its photographs is not there; ``destination`` cannot be written or
            holds other files.

    """
    folder, count = Path(destination), 0
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{destination} is not empty: name a new folder, or remove it first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside it and renamed at the end: a folder that is there is whole, whatever ended an earlier try.
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            for name in PHOTOGRAPHS:
                label = Path(unfinished, folder.name, Path(name).stem)
                label.mkdir(parents=True)
                for number, crop in enumerate(_crops(name)):
                    crop.save(label / f"{number:03d}.jpg", quality=JPEG_QUALITY)
                    count += 1
            os.replace(Path(unfinished, folder.name), folder)
    except OSError as error:
        raise InputError(f"cannot write to {destination}: {error.strerror or error}; name another folder") from error
    return count


def _photograph(name: str) -> Image.Image:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise InputError("the demo's photographs are those of scikit-image: pip install 'freqgan[demo]'")
    path = Path(next(iter(package.submodule_search_locations))) / "data" / name
    if not path.is_file():
        raise InputError(f"this version of scikit-image has no {name}: pip install 'scikit-image>=0.22'")
    with Image.open(path) as image:
        return image.convert("RGB")


def _crops(name: str) -> Iterator[Image.Image]:
    """Return up to CROPS_PER_PHOTOGRAPH crops at places that follow from the name alone."""
    photograph = _photograph(name)
    # Raw PCG64 output: NumPy promises never to change it, unlike the methods of its Generator.
    draws = iter(
        np.random.PCG64(derive_seed("demo", name)).random_raw(2 * CROPS_PER_PHOTOGRAPH * TRIES_PER_CROP).tolist()
    )
    taken = 0
    for left, top in zip(draws, draws, strict=True):
        x, y = left % (photograph.width - SIZE + 1), top % (photograph.height - SIZE + 1)
        crop = photograph.crop((x, y, x + SIZE, y + SIZE))
        if np.asarray(crop.convert("L")).std() >= MIN_DEVIATION:
            yield crop
            taken += 1
        if taken == CROPS_PER_PHOTOGRAPH:
            return


def main(arguments: list[str]) -> None:
    """Run the command; leave by SystemExit with 2 where it cannot be done."""
    if len(arguments) != 1:
        print("usage: python -m launch.tools.demo_images DIR", file=sys.stderr)
        raise SystemExit(2)
    try:
        count = write_demo_images(arguments[0])
    except FreqganError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(f"{count} crops of {SIZE} x {SIZE} from {len(PHOTOGRAPHS)} photographs in {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
