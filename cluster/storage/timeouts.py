"""How long storage is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadTimeouts:
    """How long storage may give nothing.

    ``stall_s``: until a connection counts as dead and another one is made. ``budget_s``: until the read is given up.
    """

    stall_s: float = 20.0
    budget_s: float = 120.0


USUAL_PATIENCE = ReadTimeouts()
