"""Training images for the demo: ``python -m launch.tools.demo_images icons DIR``, or ``photographs DIR``.

Both come from packages that are installed with pip, so nothing is downloaded; every class is a folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from freqgan.errors import FreqganError, InputError
from launch.tools.icons import icon_pictures
from launch.tools.photographs import photograph_crops

KINDS: dict[str, Callable[[], Iterator[tuple[str, Image.Image]]]] = {
    "icons": icon_pictures,
    "photographs": photograph_crops,
}


def write_demo_images(kind: str, destination: str) -> int:
    """Write the images of ``kind`` as PNG files into ``destination``; return how many. The same images every time.

    Raises:
        InputError: a package or a file of it is not there; ``destination`` cannot be written or holds other files.

    """
    folder, counts = Path(destination), Counter[str]()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{destination} is not empty: name a new folder, or remove it first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside it and renamed at the end: a folder that is there is whole, whatever ended an earlier try.
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            for label, image in KINDS[kind]():
                path = Path(unfinished, folder.name, label, f"{counts[label]:03d}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
                counts[label] += 1
            os.replace(Path(unfinished, folder.name), folder)
    except OSError as error:
        raise InputError(f"cannot write to {destination}: {error.strerror or error}; name another folder") from error
    return counts.total()


def main(arguments: list[str]) -> None:
    """Run the command; leave by SystemExit with 2 where it cannot be done."""
    if len(arguments) != 2 or arguments[0] not in KINDS:
        print(f"usage: python -m launch.tools.demo_images {'|'.join(KINDS)} DIR", file=sys.stderr)
        raise SystemExit(2)
    kind, destination = arguments
    try:
        count = write_demo_images(kind, destination)
    except FreqganError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(f"{count} images ({kind}) in {destination}")


if __name__ == "__main__":
    main(sys.argv[1:])
