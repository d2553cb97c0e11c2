"""What one stage costs in time and memory, as a straight line over the images of a step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage: a step on ``images`` images takes ``fixed_s + image_s * images`` seconds at speed 1.

    Attributes:
        name: the stage's.
        fixed_s: seconds of a step that do not depend on the number of images.
        image_s: seconds for every image of a step.
        fixed_bytes: memory for weights, averages and moments.
        image_bytes: memory for the activations of an image.

    """

    name: str
    fixed_s: float
    image_s: float
    fixed_bytes: int = 0
    image_bytes: int = 0

    def seconds(self, images: int) -> float:
        """Return the seconds of a step on ``images`` images at speed 1; 0 for no images."""
        return self.fixed_s + self.image_s * images if images else 0.0

    def memory_bytes(self, images: int) -> int:
        """Return the memory for ``images`` images of a step."""
        return self.fixed_bytes + self.image_bytes * images
