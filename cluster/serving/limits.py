"""How much one request, and all that wait, may ask for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What is refused beyond; every number is at least 1.

    Attributes:
        count: images of one request.
        evaluations: passes of a flow expert's network for one sample.
        upload_bytes: of the body of a request with images.
        body_bytes: of any other body.
        pixels: of an image that is uploaded, told by its header.
        queue: requests that are answered at the same time, or wait.
        seconds: for an answer.

    """

    count: int = 64
    evaluations: int = 200
    upload_bytes: int = 8 * MEBIBYTE
    body_bytes: int = MEBIBYTE
    pixels: int = 4 * MEBIBYTE
    queue: int = 128
    seconds: float = 60.0

    def values(self) -> dict[str, float]:
        """Return the limits by name."""
        return asdict(self)
