"""Images that are damaged for good: kept in ``quarantine.jsonl`` of a run and left out of its batches from there on.

An image is left out from the position of the order on at which it was found damaged: nothing before it shifts, so what
was trained on stays what it was, and a replay, a resumed run and any number of readers get the same batches.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster.storage import Folder
from freqgan.errors import InputError, RunError

QUARANTINE = "quarantine.jsonl"
WHOLE_SHARD = -1
"""For the number of a sample, where all images of a shard are whole and used, and something else in it is damaged."""


@dataclass(frozen=True)
class LeftOut:
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

    def __init__(self, found: tuple[LeftOut, ...]) -> None:
        others = f" (and {len(found) - 1} more images of this batch)" if len(found) > 1 else ""
        super().__init__(f"{found[0].reason}{others}")
        self.found = found

    def __reduce__(self) -> tuple[type[DamageFoundError], tuple[tuple[LeftOut, ...]]]:
        """As it was made: the base class would make it of its message."""
        return DamageFoundError, (self.found,)


class Quarantine:
    """The images that a run leaves out; one process, that which trains the run, adds to it.

    Args:
        folder: of the run.
        limit: most images.

    Raises:
        InputError: the file is there and cannot be read.

    """

    def __init__(self, folder: Folder, limit: int) -> None:
        self._folder, self.limit = folder, limit
        self.left_out = read_quarantine(folder)
        self.unreported: deque[LeftOut] = deque()
        """Those added since; who tells the user of one takes it out."""

    def add(self, found: Sequence[LeftOut]) -> None:
        """Leaves out ``found`` as well; they are in the file before any batch without them is handed out.

        RunError where it is too many; the file then stays as it was.
        """
        known = {one.key: one for one in self.left_out}
        new = tuple(one for one in found if one.key not in known)
        for one in found:  # again where a run begins again before the place at which it was found first
            if one.key not in known or one.position < known[one.key].position:
                known[one.key] = one
        count = len(known)
        if count > self.limit:
            there = f"; {len(self.left_out)} of them are in {self._folder.url}/{QUARANTINE}" if self.left_out else ""
            raise RunError(
                f"{found[0].reason}. That makes at least {count} damaged images, and max_damaged={self.limit} may be "
                f"left out{there}. Restore the shards (`freqgan shards verify` names all that are damaged), or raise "
                "max_damaged, and run the same command again"
            )
        all_of_them = sorted(known.values(), key=lambda one: one.position)
        lines = [json.dumps(asdict(one), separators=(",", ":")) for one in all_of_them]
        self._folder.write(QUARANTINE, "".join(line + "\n" for line in lines).encode())
        self.left_out = tuple(all_of_them)
        self.unreported.extend(new)


def read_quarantine(folder: Folder) -> tuple[LeftOut, ...]:
    """The images that the run in ``folder`` leaves out; InputError where its file cannot be read."""
    if not folder.exists(QUARANTINE):
        return ()
    found = []
    for number, line in enumerate(folder.read(QUARANTINE).splitlines(), 1):
        try:
            one = LeftOut(**json.loads(line))
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
