"""Images that are damaged for good: kept in ``quarantine.jsonl`` of a run and left out of its batches from there on.

An image is left out from the position of the order on at which it was found damaged: nothing before it shifts, so what
was trained on stays what it was, and a replay, a resumed run and any number of readers get the same batches. A run
without a checkpoint has not been trained on anything that counts: it begins with an empty file.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from cluster.storage.folder import Folder
from freqgan.errors import InputError, RunError

Result = TypeVar("Result")

QUARANTINE = "quarantine.jsonl"
WHOLE_SHARD = -1
"""For the number of a sample, where all images of a shard are whole and used, and something else in it is damaged."""
MOST_REASONS = 3
"""That are told of many images."""


@dataclass(frozen=True)
class QuarantinedImage:
    """One image.

    Attributes:
        shard: its URL.
        member: the image's name in it; "" where it is not an image that is damaged.
        reason: what is wrong with it.
        shard_number: in the index of the data.
        sample_number: in the shard; or WHOLE_SHARD.
        position: in the order, from which on it is left out.

    """

    shard: str
    member: str
    reason: str
    shard_number: int
    sample_number: int
    position: int

    @property
    def key(self) -> tuple[int, int]:
        """What tells images apart."""
        return self.shard_number, self.sample_number


class DamageFoundError(RunError):
    """A batch has images that are damaged for good; it can be had without them."""

    def __init__(self, found: tuple[QuarantinedImage, ...]) -> None:
        others = f" (and {len(found) - 1} more images of this batch)" if len(found) > 1 else ""
        super().__init__(f"{found[0].reason}{others}")
        self.found = found

    def __reduce__(self) -> tuple[type[DamageFoundError], tuple[tuple[QuarantinedImage, ...]]]:
        """As it was made: the base class would make it of its message."""
        return DamageFoundError, (self.found,)


class Quarantine:
    """The images that a run leaves out; one process, that which trains the run, adds to it.

    Args:
        folder: of the run; None to leave out what is damaged and store nothing.
        limit: most images.
        left_out: with which it begins; those of the file where not given.

    Raises:
        InputError: the file is there and cannot be read.

    """

    def __init__(self, folder: Folder | None, limit: int, left_out: tuple[QuarantinedImage, ...] | None = None) -> None:
        self._folder, self.limit = folder, limit
        self.left_out = read_quarantine(folder) if left_out is None and folder is not None else left_out or ()
        self.unreported: deque[QuarantinedImage] = deque()
        """Those added since; who tells the user of one takes it out."""

    def add(self, found: Sequence[QuarantinedImage], total: int) -> None:
        """Leave out ``found`` as well; they are in the file before any batch without them is handed out.

        RunError where it is too many, or all of ``total`` images; the file then stays as it was.
        """
        known = {one.key: one for one in self.left_out}
        new = tuple(one for one in found if one.key not in known)
        for one in found:  # again where a run begins again before the place at which it was found first
            if one.key not in known or one.position < known[one.key].position:
                known[one.key] = one
        check_some_are_left(known.values(), total)
        if len(known) > self.limit:
            raise RunError(self._too_many(known.values()))
        all_of_them = sorted(known.values(), key=lambda one: one.position)
        if self._folder is not None:
            lines = [json.dumps(asdict(one), separators=(",", ":")) for one in all_of_them]
            self._folder.write(QUARANTINE, "".join(line + "\n" for line in lines).encode())
        self.left_out = tuple(all_of_them)
        self.unreported.extend(new)

    def begin_anew(self) -> None:
        """Leave out nothing, and remove the file: it is of a start that came to no checkpoint."""
        if self._folder is not None:
            self._folder.delete(QUARANTINE)
        self.left_out = ()
        self.unreported.clear()

    def _too_many(self, images: Collection[QuarantinedImage]) -> str:
        there = ""
        if self.left_out and self._folder is not None:
            there = f"; {len(self.left_out)} of them are in {self._folder.url}/{QUARANTINE}"
        return (
            f"there are at least {len(images)} damaged images, and max_damaged={self.limit} may be left out{there}: "
            f"{reasons_text(images)}. Restore the shards (`freqgan shards verify` names all that are damaged), raise "
            "ingest.max_pixels where images are larger, or raise max_damaged, and run the same command again"
        )


def read_around_damage(read: Callable[[], Result], exclude: Callable[[tuple[QuarantinedImage, ...]], None]) -> Result:
    """Return what ``read`` gives in the end: while it finds damaged images, ``exclude`` gets them and it reads again.

    ``exclude`` has to see to it that the next call of ``read`` passes over them, or raise.
    """
    while True:
        try:
            return read()
        except DamageFoundError as error:
            exclude(error.found)


def reasons_text(images: Iterable[QuarantinedImage]) -> str:
    """Return the commonest reasons, each with the number of images and an example."""
    kinds: dict[str, list[QuarantinedImage]] = {}
    for one in images:
        kinds.setdefault(_kind_of(one), []).append(one)
    commonest = sorted(kinds.values(), key=len, reverse=True)
    texts = [f"{len(alike)} like this: {alike[0].reason}" for alike in commonest[:MOST_REASONS]]
    if others := sum(map(len, commonest[MOST_REASONS:])):
        texts.append(f"{others} for other reasons")
    return "; ".join(texts)


def images_of(entries: Iterable[QuarantinedImage]) -> list[QuarantinedImage]:
    """Return those entries that are images and not shards."""
    return [entry for entry in entries if entry.sample_number != WHOLE_SHARD]


def check_some_are_left(images: Iterable[QuarantinedImage], total: int) -> None:
    """RunError, with the reasons, where ``images`` are all that there are."""
    if len(left_out := images_of(images)) >= total:
        raise RunError(
            f"all {total} images are damaged or refused: {reasons_text(left_out)}. Restore the shards, or raise "
            "ingest.max_pixels where images are larger"
        )


def _kind_of(image: QuarantinedImage) -> str:
    """Return the reason without what only one image has: names and numbers."""
    nameless = image.reason.replace(image.member, "") if image.member else image.reason
    return re.sub(r"\d+", "0", nameless.replace(image.shard, ""))


def read_quarantine(folder: Folder) -> tuple[QuarantinedImage, ...]:
    """Return the images that the run in ``folder`` leaves out; InputError where its file cannot be read."""
    if not folder.exists(QUARANTINE):
        return ()
    found = []
    for number, line in enumerate(folder.read(QUARANTINE).splitlines(), 1):
        try:
            one = QuarantinedImage(**json.loads(line))
            numbers = one.shard_number, one.sample_number - WHOLE_SHARD, one.position
            if not all(isinstance(value, int) and value >= 0 for value in numbers):
                raise ValueError(f"numbers {numbers}")
            found.append(one)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{folder.url}/{QUARANTINE}, line {number}, is no image that was left out ({error}): the order of the "
                "images cannot be known without it; restore the file, or train into another run="
            ) from error
    return tuple(found)
