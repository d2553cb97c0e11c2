"""What a worker answers: bytes with headers, or why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from freqgan.errors import FreqganError, InputError

PNG, WEBP, ZIP, JSON = "image/png", "image/webp", "application/zip", "application/json"
ARRAY = TENSORS = "application/octet-stream"
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
FIELD_NAMES = {"at": "mix", "gain": "gains", "mix_by": "mix", "from_level": "level"}
"""Options of the commands whose field is called otherwise."""


@dataclass(frozen=True)
class PassRecord:
    """One pass of a model: seconds, images, and requests that shared it."""

    seconds: float
    images: int
    requests: int


@dataclass(frozen=True)
class Answer:
    """A body, and what is said of it.

    Attributes:
        body: its bytes.
        media_type: as in Content-Type.
        headers: beside that.
        images: how many images it holds.
        passes: of the model; those that several requests share are in the answer to one of them.

    """

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    images: int = 0
    passes: tuple[PassRecord, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer: a status of HTTP, a sentence with the remedy, and the field that is wrong, if one is."""

    status: int
    message: str
    field: str | None = None

    @staticmethod
    def of(error: FreqganError) -> Refusal:
        """Return the refusal that says ``error``, whose options are named as the fields of a request."""
        if not isinstance(error, InputError):
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"the model could not answer: {error}; try again")
        names = [FIELD_NAMES.get(name, name) for name in map(_field, _OPTION.findall(str(error)))]
        message = _OPTION.sub(lambda match: FIELD_NAMES.get(_field(match[1]), _field(match[1])), str(error))
        return Refusal(HTTPStatus.BAD_REQUEST, message, names[0] if names else None)


def _field(option: str) -> str:
    return option.replace("-", "_")
