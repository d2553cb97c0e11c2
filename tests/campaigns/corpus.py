"""Every image of a folder, decoded by the product and by Pillow: what is equal, near, refused and why, or wrong.

``python -m tests.campaigns.corpus FOLDER`` (``make corpus CORPUS=FOLDER``): a table over all files below it that Pillow
opens as JPEG, PNG or WebP, and a line for every one that is refused or wrong. Ends with 1 where one is wrong: further
than NEAR levels from Pillow. Whether a refusal is true is for the reader to judge: each is printed with its reason.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cluster.data.decoding import Pixels, decode_image
from freqgan.errors import InputError

NEAR = 8
"""Levels of 255: decoders of JPEG round differently, and Pillow lays a 16-bit image on white after cutting it to 8."""
EQUAL, NEARLY, REFUSED, WRONG, SINGLE = (
    "equal",
    f"within {NEAR} levels",
    "refused",
    "wrong",
    "decoded, and not by Pillow",
)
BACKGROUND = (200, 30, 90)


@dataclass(frozen=True)
class Verdict:
    """``detail``: the reason of a refusal, or how far it is from Pillow."""

    kind: str
    detail: str = ""


def verdict(data: bytes) -> Verdict | None:
    """None where Pillow does not open it as one of the three formats."""
    expected = pillow_pixels(data)
    if expected is None:
        return None
    try:
        found = decode_image(data, "image", background=BACKGROUND)
    except InputError as error:
        also = " (Pillow cannot decode it either)" if isinstance(expected, str) else ""
        return Verdict(REFUSED, str(error) + also)
    if isinstance(expected, str):
        return Verdict(SINGLE, expected)
    return compared(found, expected)


def compared(found: Pixels, expected: NDArray[np.uint8]) -> Verdict:
    """Whether two decoders agree."""
    if found.shape != expected.shape:
        return Verdict(WRONG, f"{found.shape} and not {expected.shape}")
    distance = int(np.abs(found.astype(int) - expected).max(initial=0))
    if distance == 0:
        return Verdict(EQUAL)
    return Verdict(NEARLY if distance <= NEAR else WRONG, f"{distance} levels from Pillow")


def pillow_pixels(data: bytes) -> NDArray[np.uint8] | str | None:
    """Upright, laid on the background; a text says why Pillow opens the image and cannot decode it."""
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG", "PNG", "WEBP"])
    except Exception:
        return None
    try:
        return np.asarray(_on_background(_with_alpha(_upright(image), bits=data[24])).convert("RGB"))
    except Exception as error:
        return str(error)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF turns nothing
        return image


def _with_alpha(image: Image.Image, bits: int) -> Image.Image:
    """8 bits; the transparent colour of a PNG becomes alpha, which Pillow does rightly where a sample has 8 bits."""
    key = image.info.get("transparency")
    levels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode.startswith("I"):
        image = Image.fromarray((levels / 257).round().astype(np.uint8))
    elif image.mode == "L" and bits < 8 and key is not None:
        key = key * 255 // (2**bits - 1)
    elif image.mode == "RGB" and bits == 16 and key is not None:
        key = tuple(value >> 8 for value in key)
    elif image.mode == "P" or key is None:
        return image
    image = image.convert("RGB" if image.mode == "RGB" else "L")
    if key is not None:
        image.info.pop("transparency", None)
        opaque = (levels != key).reshape(*levels.shape[:2], -1).any(axis=2)
        image.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return image


def _on_background(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image.convert("RGBA"))


def folder_verdicts(folder: Path, suffixes: Collection[str] = ()) -> Iterator[tuple[str, Verdict]]:
    """Of all files below ``folder`` that Pillow opens, or of those with such suffixes alone."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (not suffixes or path.suffix in suffixes):
            found = verdict(path.read_bytes())
            if found is not None:
                yield str(path.relative_to(folder)), found


def table(verdicts: list[tuple[str, Verdict]]) -> Iterator[str]:
    """A line for every verdict, the refusals by their reasons, in order of their number."""
    kinds = Counter(verdict.kind for _, verdict in verdicts)
    for kind, count in kinds.most_common():
        yield f"{count:6} {kind}"
    for reason, count in Counter(_reason(one.detail) for _, one in verdicts if one.kind == REFUSED).most_common():
        yield f"{count:6} {REFUSED}: {reason}"


def _reason(text: str) -> str:
    """Without what differs from file to file."""
    return re.sub(r"\d+", "N", text.removeprefix("image "))


def main(folder: Path) -> int:
    """Prints the table and every image that is refused or wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdicts = list(folder_verdicts(folder))
    for name, one in verdicts:
        if one.kind not in (EQUAL, NEARLY):
            print(f"{name}: {one.kind}: {one.detail}")
    print(f"{len(verdicts)} images that Pillow opens")
    print("\n".join(table(verdicts)))
    return int(any(one.kind == WRONG for _, one in verdicts))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
