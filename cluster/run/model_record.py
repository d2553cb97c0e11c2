"""What is stored about the versions of a model: attempts, records with verdicts, and moves of CURRENT, as JSON.

The keys of the files are those of the fields, apart from ``from``, which Python does not take as a name. Keys that this
program does not know are read and written again.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from freqgan.errors import InputError
from freqgan.setting_group import invalid_values

FORMAT = 1
RESTORE = "restore it from a copy"

Record = TypeVar("Record", bound="StoredRecord")


class StoredRecord(BaseModel):
    """Base of what is stored in a file of JSON."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def values(self) -> dict[str, Any]:
        """Return the contents of the file; not-a-number and infinities stay what they are."""
        return self.model_dump(by_alias=True)


class PinnedShard(StoredRecord):
    """A shard that a version is trained on, as the index has it: name, sha256 and number of images."""

    shard: str
    sha256: str
    samples: int


class Attempt(StoredRecord):
    """A version that is being trained, and what that was pinned to when it was begun.

    ``begins_with`` is the number of the version whose weights it begins with; None if it begins from nothing.
    """

    number: int
    begun_at_s: float
    begins_with: int | None = Field(alias="from")
    shards: tuple[PinnedShard, ...]
    new_images: int
    settings: dict[str, Any]


class GateRow(StoredRecord):
    """One metric of the gate: the candidate, the model in use and the bound, where there are such, and the outcome."""

    metric: str
    candidate: float
    current: float | None
    bound: float | None
    holds: bool


class Verdict(StoredRecord):
    """Whether a version is good enough, and metric by metric why."""

    holds: bool
    rows: tuple[GateRow, ...]

    @property
    def failed(self) -> list[str]:
        """The metrics in which a version is too much worse."""
        return [row.metric for row in self.rows if not row.holds]


class TrainingData(StoredRecord):
    """The shards that a version was trained on."""

    url: str
    shards: tuple[PinnedShard, ...]
    images: int
    new_images: int


class Lineage(StoredRecord):
    """Where a version comes from: data, code, settings, metrics and verdict.

    Attributes:
        name: of the model.
        begins_with: the version whose weights it began with; None if it began from nothing.
        begun_at_s: seconds since 1970.
        code: version of this program.
        data: what it was trained on.
        settings: of the training; text of YAML in the oldest records.
        step: training steps.
        images: that training has seen.
        digest: sha256 of weights and optimiser states.
        held_out: what it was measured on.
        scores: by metric.
        verdict: of the gate.

    """

    name: str
    begins_with: int | None = Field(alias="from")
    begun_at_s: float
    code: str
    data: TrainingData
    settings: dict[str, Any] | str
    step: int
    images: int
    digest: str
    held_out: str
    scores: dict[str, float]
    verdict: Verdict


class VersionRecord(Lineage):
    """The record of a finished version: its lineage, number, and when it was finished."""

    format: int
    number: int
    finished_at: str
    finished_at_s: float


class Move(StoredRecord):
    """A version was put in use: when, in seconds since 1970, and why."""

    version: int
    at_s: float
    why: str


class CurrentRecord(StoredRecord):
    """What CURRENT holds: the version in use, the epoch of the lease that moved it, all in use in turn, all moves."""

    version: int
    epoch: int
    stack: tuple[int, ...] = Field(min_length=1)
    log: tuple[Move, ...]


def read_record(kind: type[Record], data: bytes, name: str, remedy: str = RESTORE) -> Record:
    """Return the record of ``kind`` that ``data`` holds.

    Args:
        kind: which record it is.
        data: contents of the file.
        name: of the file, for messages.
        remedy: what to do where it is damaged.

    Raises:
        InputError: it is no JSON, or some key is missing or has another kind of value.

    """
    try:
        return kind.model_validate(json.loads(data))
    except ValidationError as error:
        raise damaged_record(name, invalid_values(error), remedy) from error
    except (ValueError, RecursionError) as error:
        raise damaged_record(name, str(error), remedy) from error


def damaged_record(name: str, reason: str, remedy: str = RESTORE) -> InputError:
    """Return the error of a file that is no record."""
    return InputError(f"{name} is damaged ({reason}): {remedy}")
