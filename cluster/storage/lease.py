"""A lease on a name: one holder at a time, over any storage with a conditional write.

The holder's record says who it is, and is renewed with a new nonce. Whoever wants the lease watches the nonce by a
clock of its own that nobody sets: one that stays the same for the duration of a lease is that of a holder which is gone
or cut off, whatever the clocks of the two machines say. The lease then goes over with the next epoch. The epoch is a
fencing token (Kleppmann 2016): what a former holder still tries to commit carries a lower one.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from types import TracebackType

from cluster.storage.folder import Folder
from cluster.storage.process_identity import ProcessIdentity, is_gone, own_identity
from freqgan.errors import FreqganError, InputError, RunError

DURATION_S = 30.0
POLL_S = 0.5
MOST_RACES = 20
"""Times that others may be faster to write a record that is free, before it is given up."""
NONCES = 16
"""Records that a holder remembers to know its own by, where the answer to a write was lost."""


class HeldError(InputError):
    """Somebody else holds the lease, and lives."""


@dataclass(frozen=True)
class Holder:
    """The record of a lease.

    Attributes:
        host: name of the machine.
        pid: of the process.
        epoch: of the lease; each holder's is higher than that of the one before.
        until_s: Unix time by the holder's clock until which it holds without a renewal; 0 once it has given it back.
        nonce: another one in every record.
        boot_id, pid_namespace, started: what tells the process from all others, see :class:`ProcessIdentity`.

    """

    host: str
    pid: int
    epoch: int
    until_s: float
    nonce: str
    boot_id: str = ""
    pid_namespace: int = 0
    started: int = 0

    @property
    def name(self) -> str:
        """How messages call the holder."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_free(self) -> bool:
        """Whether the lease was given back, or its holder is known to be gone."""
        return self.until_s == 0 or is_gone(ProcessIdentity(self.pid, self.boot_id, self.pid_namespace, self.started))


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
        self._nonces: deque[str] = deque(maxlen=NONCES)
        self._good_until_s = 0.0  # of time.monotonic: what a clock that is set cannot move
        self._guard = threading.Lock()
        self._ending = threading.Event()
        self._renewer = threading.Thread(target=self._renew_for_long, name=f"lease {name}", daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            HeldError: somebody else holds it and lives.
            InputError: the storage cannot hold a lease.

        """
        self._take()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back, for the next one to take at once."""
        self._ending.set()
        self._renewer.join()
        with self._guard:
            tag, self._tag = self._tag, None
            try:
                if tag is not None:
                    self.folder.write_if(self.name, self._record(0.0), tag)
            except FreqganError:
                if error is None:  # else what is under way says what is wrong, and the record runs out by itself
                    raise

    def check(self) -> None:
        """Raise RunError unless the lease is still held: to be asked right before anything is committed."""
        with self._guard:
            if self._tag is None or time.monotonic() >= self._good_until_s:
                self._renew()

    # -- taking --------------------------------------------------------------------------------

    def _take(self) -> None:
        """Take a record that is free, or watch one that is not for one duration.

        A holder that lives renews it within a third of that.
        """
        watched, since_s, races = "", 0.0, 0
        while races < MOST_RACES:
            holder, tag = self._read()
            if holder is None or holder.is_free or self._has_run_out(holder, watched, since_s):
                self.epoch = holder.epoch + 1 if holder else 1
                if self._write(tag):
                    return
                races += 1
            elif watched and holder.nonce != watched:
                raise HeldError(
                    f"{self.what} is in use by {holder.name}, which renewed its lease a moment ago: wait for it, stop "
                    "it, or choose another run"
                )
            elif not watched:
                watched, since_s = holder.nonce, time.monotonic()
                waits = f"waits up to {self.duration_s:g} s to see whether its lease is renewed"
                self.note(f"{self.what} was in use by {holder.name}; {waits}")
            time.sleep(POLL_S * random.uniform(0.5, 1.0))
        raise RunError(
            f"{self.what}: others wrote its lease {MOST_RACES} times before this process could; see what uses "
            f"{self.folder.url}, and run again"
        )

    def _has_run_out(self, holder: Holder, watched: str, since_s: float) -> bool:
        return holder.nonce == watched and time.monotonic() - since_s >= self.duration_s

    def _read(self) -> tuple[Holder | None, str | None]:
        """Return the record, where there is one that can be read, and the tag of what is there."""
        tagged = self.folder.read_tagged(self.name)
        return (None, None) if tagged is None else (_parsed(tagged[0]), tagged[1])

    def _write(self, tag: str | None) -> bool:
        began_s = time.monotonic()
        self._tag = self.folder.write_if(self.name, self._record(time.time() + self.duration_s), tag)
        self._good_until_s = began_s + self.duration_s
        return self._tag is not None

    def _record(self, until_s: float) -> bytes:
        self._nonces.append(uuid.uuid4().hex)
        record = {"host": socket.gethostname(), "epoch": self.epoch, "until_s": until_s, "nonce": self._nonces[-1]}
        return json.dumps(record | asdict(own_identity())).encode()

    # -- keeping -------------------------------------------------------------------------------

    def _renew_for_long(self) -> None:
        while not self._ending.wait(self.duration_s / 3):
            with self._guard:
                try:
                    self._renew()
                except FreqganError:  # the next one, or the next check, tries again; it knows how long it has been
                    continue

    def _renew(self) -> None:
        """Extend the lease by one more duration; RunError when somebody else has it.

        A record that only ran out is taken back, and so is one that is ours by nonce and epoch under another tag.
        """
        if self._tag is not None and self._write(self._tag):
            return
        holder, tag = self._read()
        if holder is None:
            raise RunError(
                f"{self.what}: the record {self.name} in {self.folder.url} of its lease (epoch {self.epoch}) was "
                "deleted or damaged by somebody else; nothing more is committed. Run again to take a new one"
            )
        if holder.epoch == self.epoch and holder.nonce in self._nonces:
            if self._write(tag):
                return
            raise RunError(
                f"{self.what}: the storage at {self.folder.url} does not let this process renew its own lease (epoch "
                f"{self.epoch}): it refuses the record as changed, and it is unchanged; `freqgan storage check "
                f"{self.folder.url}` shows what it does"
            )
        raise RunError(
            f"{self.what}: the lease is lost to {holder.name} (epoch {holder.epoch}, ours was {self.epoch}); nothing "
            "more is committed. Is the same run started twice?"
        )


def holder_of(folder: Folder, name: str) -> Holder | None:
    """Return who has, or last had, the lease of ``name``; None where nobody ever did."""
    record = folder.read_tagged(name)
    return _parsed(record[0]) if record else None


_FIELDS = {field.name for field in fields(Holder)}


def _parsed(data: bytes) -> Holder | None:
    """Return the record of ``data``; None for what is none, which nobody can hold.

    A later version may say more in it.
    """
    try:
        record = json.loads(data)
        holder = Holder(**{name: value for name, value in record.items() if name in _FIELDS})
        int(holder.pid), int(holder.epoch), float(holder.until_s)
        return holder
    except (ValueError, TypeError, AttributeError):
        return None
