"""SIGTERM and SIGINT as an event that the training loop asks for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests(event: threading.Event | None = None) -> Iterator[threading.Event]:
    """Give an event, a new one if none is given, that SIGTERM or SIGINT sets. Main thread only.

    A second SIGINT does what it always did.

    SIGTERM may come twice (to a process and to its group): the second one must not cost the checkpoint.
    """
    event = event or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number: int, _frame: object) -> None:
        event.set()
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
