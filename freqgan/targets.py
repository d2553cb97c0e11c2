"""Where the parts of a target vector lie, in the tensors and arrays that carry it. Nothing here needs torch.

A model with classes alone takes labels, (B,) int64. With ``conditioning`` a target is a row of float32: label,
embedding, features, caption (a byte in each column, zeros behind its end), and a last column that is 1 where the target
is shown and 0 where the sample is to do without.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TargetLayout:
    """The parts of a target.

    Attributes:
        classes: number of classes, 0 without labels.
        embedding: numbers of a vector that comes with the image.
        features: numbers that were computed from the image.
        caption: bytes of a caption at most.
        packed: whether a target is a row of numbers; if not, it is the label alone.
        caption_width: channels of the network that reads captions.
        caption_layers: layers of that network.

    """

    classes: int = 0
    embedding: int = 0
    features: int = 0
    caption: int = 0
    packed: bool = False
    caption_width: int = 64
    caption_layers: int = 2

    def __bool__(self) -> bool:
        """Whether there is a target at all."""
        return self.packed or self.classes > 0

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of each part of a packed target, parts of no column left out."""
        widths = {
            "label": int(self.classes > 0),
            "embedding": self.embedding,
            "features": self.features,
            "caption": self.caption,
            "shown": 1,
        }
        columns, first = {}, 0
        for name, width in widths.items():
            if width:
                columns[name] = slice(first, first + width)
            first += width
        return columns

    @property
    def shape(self) -> dict[str, int]:
        """What decides the shapes of networks beside the classes, of packed targets; nothing of labels alone."""
        caption = {"caption": self.caption, "caption_width": self.caption_width, "caption_layers": self.caption_layers}
        shape = {"embedding": self.embedding, "features": self.features, **(caption if self.caption else {})}
        return {"shown": 1} | {name: number for name, number in shape.items() if number} if self.packed else {}

    @property
    def width(self) -> int:
        """The columns of a packed target in all."""
        return int(self.classes > 0) + self.embedding + self.features + self.caption + 1


def encoded_caption(text: str, most: int) -> bytes:
    """Return the UTF-8 of ``text`` without white space at its ends, at most ``most`` bytes, cut at a whole letter."""
    return text.strip().encode()[:most].decode(errors="ignore").encode()
