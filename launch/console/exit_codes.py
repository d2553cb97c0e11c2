"""The exit codes of the program that others act on."""

from __future__ import annotations

REFUSED_EXIT_CODE = 2
"""Wrong usage or input: the same command would end in the same way."""
STOPPED_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again to go on."""
