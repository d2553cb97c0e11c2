"""Whether what ``freqgan serve`` needs beside the rest is installed; asked before it is imported."""

from __future__ import annotations

import importlib.util

from freqgan.errors import InputError

MODULES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
"""Those of the extra `serve`: some come with other parts of Ray as well."""


def check_extra() -> None:
    """Raise InputError where the extra `serve` is not installed."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: not installed; run `pip install 'freqgan[serve]'`")
