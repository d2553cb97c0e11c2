"""``freqgan serve``: a trained model behind HTTP, with its workers on Ray Serve."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from socket import socket

from starlette.types import ASGIApp

from cluster.ray_engine.connection import join_or_start, resources, stop_local_ray
from cluster.serving.application import create_application
from cluster.serving.backend import Backend
from cluster.serving.deployment import check_room, deployed
from cluster.serving.limits import Limits
from cluster.serving.model_source import ModelSource
from cluster.serving.replica import ReplicaOptions
from cluster.serving.server import address_of, listen, run_server
from freqgan.errors import counted
from launch.live.application import run_application
from launch.live.run_view import begun_run
from launch.pages import STATIC

STORE_BYTES = 256 * 2**20

Note = Callable[[str], None]


@dataclass(frozen=True)
class ServeRequest:
    """What is to be served, and how.

    Attributes:
        model: a run, a retrained model, or an exported folder.
        host: to listen at.
        port: to listen at; 0 for a free one.
        token: that requests must carry; None for none.
        replicas: workers.
        device: cpu or cuda.
        threads: of each worker on a CPU.
        limits: of requests.
        live: whether the page shows the training of the run as well.
        follow: whether newer checkpoints of a run are loaded; promotions of a retrained model always are.
        poll_s: seconds between looks for them.
        address: of a Ray cluster.
        quiet: writes no lines for requests.

    """

    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    replicas: int = 1
    device: str = "cpu"
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    live: bool = False
    follow: bool = False
    poll_s: float = 5.0
    address: str | None = None
    quiet: bool = False


def serve_command(request: ServeRequest, note: Note) -> str:
    """Answer requests until SIGTERM or SIGINT; return a line that says so. ``note`` gets lines meanwhile.

    Raises:
        InputError: no model, a port in use, no room for the workers.
        RunError: the workers did not come up.

    """
    options = replica_options(request)  # what is wrong with the model is said before anything starts
    if request.live:
        begun_run(request.model)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(request.host, request.port))
        cpus = max(os.cpu_count() or 1, request.replicas * request.threads)
        if own_ray := join_or_start(request.address, lambda: STORE_BYTES, cpus):
            stack.callback(stop_local_ray)
        check_room(options, request.replicas, resources())
        backend = stack.enter_context(deployed(options, request.replicas, own_ray=own_ray))
        log = (lambda text: None) if request.quiet else note
        application = application_for(request, backend, log, note)
        run_server(application, listener, request.limits.seconds, lambda: note(_ready(request, listener)))
    return f"{request.model} is not served any more"


def replica_options(request: ServeRequest) -> ReplicaOptions:
    """Return what every worker is to do. What is retrained, or shown while it trains, is followed without being asked.

    Raises:
        InputError: there is no model.

    """
    source = ModelSource(request.model)
    follows = request.follow or request.live or source.is_retrained()
    source.newest()
    return ReplicaOptions(
        request.model, request.device, request.threads, request.poll_s if follows else None, request.limits
    )


def application_for(request: ServeRequest, backend: Backend, log: Note, note: Note) -> ASGIApp:
    """Return what answers HTTP, with the page; ``log`` gets a line for each request, ``note`` those on versions."""
    live = run_application(begun_run(request.model)) if request.live else None
    return create_application(
        backend, request.limits, token=request.token, static=STATIC, live=live, log=log, note=note,
        watch_s=request.poll_s,
    )  # fmt: skip


def _ready(request: ServeRequest, listener: socket) -> str:
    return f"{request.model} answers at {address_of(listener)}, with {counted(request.replicas, 'worker')}"
