"""A look at the workers every few seconds: whether another version answers, and why one does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from cluster.serving.answers import Refusal
from cluster.serving.backend import Backend
from cluster.serving.telemetry import Telemetry


class Watch:
    """Tells what changes.

    Args:
        backend: is asked.
        telemetry: gets the version that answers.
        note: gets a line for every change.
        every_s: seconds between questions.

    """

    def __init__(self, backend: Backend, telemetry: Telemetry, note: Callable[[str], None], every_s: float) -> None:
        self.backend, self.telemetry, self.note, self.every_s = backend, telemetry, note, every_s
        self._last: tuple[object, object] = (None, None)

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Watch while the application runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        while True:
            facts = await self.backend.facts(self.every_s)
            if not isinstance(facts, Refusal):
                self._tell(facts)
            await asyncio.sleep(self.every_s)

    def _tell(self, facts: dict[str, Any]) -> None:
        version, fault = facts["version"], facts.get("fault")
        if version != self._last[0]:
            self.note(f"version {version} answers, step {facts['step']}")
            self.telemetry.served(str(version), str(facts["model"]))
        if fault is not None and fault != self._last[1]:
            self.note(fault)
        self._last = version, fault
