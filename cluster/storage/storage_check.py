"""Whether runs may be kept in a folder of a disk or a bucket: what its storage does, tried out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.storage.folder import Folder, open_folder
from cluster.storage.s3_probe import SCRATCH, Capability
from freqgan.errors import FreqganError

WRITERS, ROUNDS = 8, 3


@dataclass(frozen=True)
class StorageCheck:
    """What was tried in a folder; ``store`` is the endpoint of a bucket, or "disk"."""

    url: str
    store: str
    capabilities: tuple[Capability, ...]

    @property
    def missing(self) -> list[Capability]:
        """What a run needs and the storage does not do."""
        return [capability for capability in self.capabilities if capability.needed and not capability.holds]


def check_storage(url: str) -> StorageCheck:
    """Try out the storage at ``url`` on scratch objects that are gone afterwards.

    Raises:
        InputError, RunError: nothing can be written there at all.

    """
    folder = open_folder(url)
    folder.check_writable()
    scratch = folder.child(f"{SCRATCH}{secrets.token_hex(6)}")
    with folder.new_folders_removed():
        try:
            if folder.is_local:
                return StorageCheck(folder.url, "disk", (*_on_disk(scratch), _race(scratch)))
            profile = folder.profile()
            races = () if profile.missing else (_race(scratch),)
            return StorageCheck(folder.url, profile.store, (*profile.capabilities, *races))
        finally:
            scratch.delete_tree()


def _on_disk(folder: Folder) -> Iterator[Capability]:
    name = "object"

    def trial(what: str, right: Callable[[], bool], fault: str) -> Capability:
        try:
            holds, detail = right(), fault
        except FreqganError as error:
            holds, detail = False, str(error)
        return Capability(what, holds, "" if holds else detail)

    def reads_back() -> bool:
        folder.write(name, b"0123456789")
        return folder.read(name) == b"0123456789"

    def compares_tags() -> bool:
        tag = (folder.read_tagged(name) or (b"", None))[1]
        return folder.write_if(name, b"second", tag) is not None and folder.write_if(name, b"third", tag) is None

    yield trial("write, and read what was written", reads_back, "other bytes came back")
    yield trial("list what was just written", lambda: name in folder.list(), "it is not listed")
    yield trial("write only if it is still the same", compares_tags, "it was overwritten all the same")


def race(folder: Folder, name: str, tag: str | None, number: int, writers: int = WRITERS) -> list[str]:
    """Return the tags of those who succeed when ``writers`` replace one object at once.

    Each of them writes on condition that the object still has ``tag``.

    ``number`` tells one round from the next: what they write must differ.
    """
    bodies = [f"{number} {writer}".encode() for writer in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        results = list(pool.map(lambda body: folder.write_if(name, body, tag), bodies))
    return [result for result in results if result is not None]


def _race(folder: Folder) -> Capability:
    """Return whether exactly one writer succeeds."""
    tag, what = None, f"of {WRITERS} writers at once one wins ({ROUNDS} rounds)"
    for number in range(1, ROUNDS + 1):
        winners = race(folder, "race", tag, number)
        if len(winners) != 1:
            return Capability(what, False, f"{len(winners)} won in round {number}")
        tag = winners[0]
    return Capability(what, True)
