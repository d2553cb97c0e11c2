"""A lease on a name: one holder at a time, over any storage with a conditional write.

The holder's record says who it is, since when, and until when it is good; the holder renews it. Whoever finds a record
that is not good any more, or whose process is known to be gone, takes over with the next epoch. The epoch is a fencing
token (Kleppmann 2016): what a former holder still tries to commit carries a lower one.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType

from cluster.storage import Folder
from freqgan.errors import FreqganError, InputError, RunError

DURATION_S = 30.0
POLL_S = 0.5


class HeldError(InputError):
    """Somebody else holds the lease, and lives."""


@dataclass(frozen=True)
class Holder:
    """The record of a lease: ``until_s`` is Unix time, ``nonce`` tells records apart that are else alike."""

    host: str
    pid: int
    epoch: int
    until_s: float
    nonce: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}"


class Lease:
    """Held from :meth:`__enter__` to :meth:`__exit__`, and renewed by a thread in between.

    Args:
        folder: where the record lies.
        name: of the record.
        what: is leased, for messages.
        duration_s: for which a record is good; a holder that is cut off from storage for that long has lost it.
        note: told when the taking waits for a record to run out.

    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        what: str,
        duration_s: float = DURATION_S,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.name, self.what, self.duration_s, self.note = folder, name, what, duration_s, note
        self.epoch = 0
        self._tag: str | None = None
        self._good_until_s = 0.0  # of time.monotonic: what a clock that is set cannot move
        self._guard = threading.Lock()
        self._ending = threading.Event()
        self._renewer = threading.Thread(target=self._renew_for_long, name=f"lease {name}", daemon=True)

    def __enter__(self) -> Lease:
        """Takes it.

        Raises:
            HeldError: somebody else holds it and lives.

        """
        self._take()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives it back, for the next one to take at once."""
        self._ending.set()
        self._renewer.join()
        with self._guard:
            if self._tag is not None:
                self.folder.write_if(self.name, self._record(0.0), self._tag)
                self._tag = None

    def check(self) -> None:
        """RunError unless it is still held: to be asked right before anything is committed."""
        with self._guard:
            if self._tag is None or time.monotonic() >= self._good_until_s:
                self._renew()

    # -- taking --------------------------------------------------------------------------------

    def _take(self) -> None:
        """Waits for one duration at most: a holder that lives renews its record within a third of that."""
        deadline_s = time.monotonic() + self.duration_s + 2 * POLL_S
        waited_for: str | None = None
        while True:
            found = self.folder.read_tagged(self.name)
            holder = _parsed(found[0]) if found else None
            if holder is None or not self._is_good(holder):
                self.epoch = holder.epoch + 1 if holder else 1
                if self._write(found[1] if found else None):
                    return
                continue
            if time.monotonic() >= deadline_s or waited_for not in (None, holder.nonce):
                raise HeldError(
                    f"{self.what} is in use by {holder.name}, which renewed its lease a moment ago: wait for it, stop "
                    "it, or choose another run"
                )
            if waited_for is None:
                self.note(f"{self.what} was in use by {holder.name}; waits up to {self.duration_s:g} s for its lease")
            waited_for = holder.nonce
            time.sleep(POLL_S)

    def _is_good(self, holder: Holder) -> bool:
        """Not run out, and not of a process of this machine that is gone."""
        if holder.until_s <= time.time():
            return False
        return holder.host != socket.gethostname() or _lives(holder.pid)

    def _write(self, tag: str | None) -> bool:
        began_s = time.monotonic()
        self._tag = self.folder.write_if(self.name, self._record(time.time() + self.duration_s), tag)
        self._good_until_s = began_s + self.duration_s
        return self._tag is not None

    def _record(self, until_s: float) -> bytes:
        holder = Holder(socket.gethostname(), os.getpid(), self.epoch, until_s, uuid.uuid4().hex)
        return json.dumps(asdict(holder)).encode()

    # -- keeping -------------------------------------------------------------------------------

    def _renew_for_long(self) -> None:
        while not self._ending.wait(self.duration_s / 3):
            with self._guard:
                try:
                    self._renew()
                except FreqganError:  # the next one, or the next check, tries again; it knows how long it has been
                    continue

    def _renew(self) -> None:
        """One more duration; RunError when somebody else has it. A record that only ran out is taken back."""
        if self._tag is not None and self._write(self._tag):
            return
        found = self.folder.read_tagged(self.name)
        holder = _parsed(found[0]) if found else None
        taken_by = holder.name if holder else "somebody who deleted it"
        raise RunError(
            f"{self.what}: the lease is lost to {taken_by} (epoch {holder.epoch if holder else '?'}, ours was "
            f"{self.epoch}); nothing more is committed. Is the same run started twice?"
        )


def holder_of(folder: Folder, name: str) -> Holder | None:
    """Who has, or last had, the lease of ``name``; None where nobody ever did."""
    found = folder.read_tagged(name)
    return _parsed(found[0]) if found else None


def _parsed(data: bytes) -> Holder | None:
    """The record; None for what is none, which nobody can hold."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _lives(pid: int) -> bool:
    """Whether there is such a process on this machine, zombies apart."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
