"""Who has stopped answering: a policy on questions and answers, whatever carries them.

Ray itself notices after about 65 s that a machine cannot be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

FEWEST_LOOKS = 3
"""Looks at a question without an answer: whoever asks may have been asleep itself, and its mail with it."""


@dataclass
class _Question:
    token: Any
    asked_s: float
    looks: int = 0


class Heartbeat:
    """Asks everybody again and again, one question at a time each.

    Args:
        ask: sends a question to somebody, by name; what it gives is handed to ``answered``.
        answered: whether the answer is there; an error is one: a death is reported elsewhere.
        timeout_s: silence after which somebody is given up.
        clock: in seconds.

    """

    def __init__(
        self,
        ask: Callable[[str], Any],
        answered: Callable[[Any], bool],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._answered, self.timeout_s, self._clock = ask, answered, timeout_s, clock
        self._open: dict[str, _Question] = {}

    def silent(self, names: Collection[str]) -> list[str]:
        """Return those of ``names`` that have not answered for ``timeout_s``; to be called every second or so.

        Each is reported once: the next time it is asked anew, for there will be somebody else of that name.
        """
        now = self._clock()
        self._open = {name: question for name, question in self._open.items() if name in names}
        found = []
        for name in names:
            question = self._open.get(name)
            if question is None or self._answered(question.token):
                self._open[name] = _Question(self._ask(name), now)
                continue
            question.looks += 1
            if question.looks >= FEWEST_LOOKS and now - question.asked_s >= self.timeout_s:
                found.append(name)
                del self._open[name]
        return found
