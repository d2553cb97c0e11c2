"""The address of a Ray cluster to train on, as it was given."""

from __future__ import annotations

import os
from dataclasses import dataclass

OPTION, VARIABLE = "--address", "RAY_ADDRESS"
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Read when Ray is imported. Where it is 0, a Ray that starts here binds all its servers to loopback, as it always
does on Windows and macOS; without it they listen on every interface, whatever ``_node_ip_address`` says (2.60)."""


@dataclass(frozen=True)
class RayAddress:
    """As it was given: ``text`` by ``source``, an option or a variable."""

    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}={self.text}" if self.source == VARIABLE else f"{self.source} {self.text}"

    @property
    def remedy(self) -> str:
        """What helps where there is no cluster."""
        without = f"unset {self.source}" if self.source == VARIABLE else f"leave {self.source} out"
        return f"correct it, start the cluster, or {without} to train on this machine alone"


def given_address(option: str | None) -> RayAddress | None:
    """Return the address of the option, or of the variable; None where a Ray of the run's own is to be started.

    As in Ray, "local" stands for such a one, and the variable comes before the option's "auto".
    """
    variable = os.environ.get(VARIABLE) or None
    chosen = RayAddress(VARIABLE, variable) if variable and option in (None, "", "auto") else None
    if chosen is None and option:
        chosen = RayAddress(OPTION, option)
    return None if chosen is None or chosen.text == "local" else chosen
