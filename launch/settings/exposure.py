"""Who may use what ``freqgan serve`` serves, and whether it can be served here: checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from pathlib import Path

from freqgan.errors import InputError, nearest

TOKEN_VARIABLE = "FREQGAN_TOKEN"
SHORTEST_TOKEN = 16
TOKEN_REMEDY = "write one with `openssl rand -hex 32`"
DEVICES = ("cpu", "cuda")
MODULES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
"""Those of the extra `serve`: some come with other parts of Ray as well."""


def check_extra() -> None:
    """Raise InputError where the extra `serve` is not installed."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: not installed; run `pip install 'freqgan[serve]'`")


def check_device(device: str) -> None:
    """Raise InputError where no device is called so."""
    if device not in DEVICES:
        near = nearest(device, list(DEVICES))
        raise InputError(f"--device {device}: no device is called so{near}; there are {', '.join(DEVICES)}")


def read_token(path: str | None) -> str | None:
    """Return the token of a file, or of the variable FREQGAN_TOKEN; None where neither is given.

    Raises:
        InputError: the file cannot be read, or the token is short, or no plain text.

    """
    where = f"--token-file {path}" if path is not None else TOKEN_VARIABLE
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE)
    else:
        try:
            token = Path(path).read_text("ascii")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no plain text"
            raise InputError(f"{where} cannot be read ({reason}): {TOKEN_REMEDY}") from error
    if token is None:
        return None
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            f"{where}: a token is one word of at least {SHORTEST_TOKEN} letters of ASCII, and this has {len(token)}; "
            f"{TOKEN_REMEDY}"
        )
    return token


def require_token() -> str:
    """Return the token of the variable FREQGAN_TOKEN.

    Raises:
        InputError: there is none, or it is short, or no plain text.

    """
    token = read_token(None)
    if token is None:
        raise InputError(
            f"{TOKEN_VARIABLE} is not set, and other machines see this service: give a token in that variable, on "
            f"Kubernetes from a Secret ({TOKEN_REMEDY})"
        )
    return token


def check_exposure(host: str, token: str | None) -> None:
    """Raise InputError where a service without a token would be seen by other machines."""
    if token is None and not _is_loopback(host):
        raise InputError(
            f"--host {host}: other machines would see it, and anybody could use it; give --token-file FILE or "
            f"{TOKEN_VARIABLE} ({TOKEN_REMEDY}), or leave --host out"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
