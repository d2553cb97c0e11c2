"""``freqgan watch``: the page of a run, which shows how its training does, from what it has stored."""

from __future__ import annotations

from collections.abc import Callable

from cluster.serving.server import address_of, listen, run_server
from launch.live.application import watch_application
from launch.live.run_view import RunView
from launch.pages import STATIC

DRAIN_S = 5.0

Note = Callable[[str], None]


def watch_command(run: str, *, host: str, port: int, token: str | None, quiet: bool, note: Note) -> str:
    """Answer requests until SIGTERM or SIGINT; return a line that says so. ``note`` gets lines meanwhile.

    Args:
        run: folder or s3:// URL; nothing need be trained there yet.
        host: to listen at.
        port: to listen at; 0 for a free one.
        token: that requests must carry; None for none.
        quiet: writes no lines for requests.
        note: gets lines.

    Raises:
        InputError: ``run`` is no run, or a port in use.

    """
    view = RunView(run)
    with listen(host, port) as listener:
        log = (lambda text: None) if quiet else note
        application = watch_application(view, STATIC, token=token, log=log)
        run_server(application, listener, DRAIN_S, lambda: note(f"{run} is shown at {address_of(listener)}"))
    return f"{run} is not shown any more"
