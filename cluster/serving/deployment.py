"""The workers on Ray Serve, what is asked of them from an event loop, and an ingress of Ray Serve before them.

:func:`deployed` gives workers to a process that answers HTTP itself; :func:`service` is an application of Ray Serve,
whose proxies answer it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from ray import serve
from ray.exceptions import GetTimeoutError, RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from cluster.serving.answers import Answer, Refusal
from cluster.serving.backend import Backend
from cluster.serving.bodies import ImagesBody, RequestBody
from cluster.serving.replica import ModelReplica, ReplicaOptions
from freqgan.errors import InputError, RunError, first_line

NAME = "freqgan"
MODEL, INGRESS = "model", "http"
"""The names of the two deployments, of workers and of what answers HTTP."""
HEALTH_S = 5.0
DRAIN_S, DRAIN_POLL_S = 30.0, 0.2
STARTS, UNATTENDED_STARTS = 2, 20
"""How often a worker is started before its model is given up: where somebody waits for it, and by a service."""
SPARE_REQUESTS = 64
"""Requests that an ingress has beyond the bound on its queue: probes, and those that it refuses itself."""
SURGE_PERCENT = 25
"""Of an application that changes, so many more than there are start before those that they are to replace end."""
FULL = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "as many requests wait as may: try again in a moment")
LOST = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the worker that had this request is gone: send it again")
SLOW = Refusal(HTTPStatus.GATEWAY_TIMEOUT, "the answer took too long: try again later, or ask for less")

Result = TypeVar("Result")
Application = serve.Application


@dataclass(frozen=True)
class Autoscaling:
    """How many workers there are, as Ray Serve's ``autoscaling_config`` names it.

    Attributes:
        min_replicas: fewest.
        max_replicas: most.
        target_ongoing_requests: of each worker, drawn or waiting; more of them start another one.
        upscale_delay_s: seconds for which there must be more of them before that.
        downscale_delay_s: seconds for which there must be fewer of them before one ends.

    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 16.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


class ServeBackend:
    """The workers behind a handle of Ray Serve.

    Args:
        handle: of a deployment of :class:`ModelReplica`.

    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def images(self, body: ImagesBody, seconds: float) -> Answer | Refusal:
        """Return the answer to a request for images, within ``seconds``."""
        return await _answer(self._handle.images.remote(body, seconds), seconds)

    async def upload(self, form: RequestBody, seconds: float) -> Answer | Refusal:
        """Return the answer to an image that was sent, within ``seconds``."""
        return await _answer(self._handle.upload.remote(form, seconds), seconds)

    async def facts(self, seconds: float) -> dict[str, Any] | Refusal:
        """Return what is told of the model, within ``seconds``."""
        return await _answer(self._handle.facts.remote(), seconds)


async def _answer(response: Awaitable[Result], seconds: float) -> Result | Refusal:
    """Return what a worker answers; a refusal where it is lost, busy or late."""
    try:
        return await asyncio.wait_for(response, seconds)
    except BackPressureError:
        return FULL
    except (asyncio.TimeoutError, GetTimeoutError):
        return SLOW
    except (RayError, RayServeException, TaskCancelledError):
        return LOST


@contextmanager
def deployed(options: ReplicaOptions, replicas: int = 1, *, own_ray: bool = False) -> Iterator[ServeBackend]:
    """Give ``replicas`` workers, in the Ray cluster that this process has joined; they end with the context.

    ``own_ray`` says that the cluster is this process's own, and ends with it.

    Raises:
        RunError: a worker did not come up.

    """
    name = f"{NAME}-{uuid.uuid4().hex[:8]}"
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # this process's: workers write their own
    serve.start(proxy_location="Disabled", logging_config=_logging("WARNING"))
    try:
        yield ServeBackend(_run(name, options, replicas))
    finally:
        if own_ray:  # which ends as a whole; that threads of Serve find it gone is no news
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        else:
            serve.delete(name)
            if not serve.status().applications:
                serve.shutdown()


def _run(name: str, options: ReplicaOptions, replicas: int) -> DeploymentHandle[Any]:
    workers = _workers(options, num_replicas=replicas, max_constructor_retry_count=STARTS)
    try:
        return serve.run(workers, name=name, route_prefix=None, logging_config=_logging("WARNING"))
    except (RuntimeError, RayError) as error:
        raise RunError(f"the workers did not come up: {first_line(error)}; see the log of Ray Serve") from error


def _workers(options: ReplicaOptions, **others: Any) -> Application:
    """Return the deployment of the workers; ``others`` are options of Ray Serve, such as how many there are."""
    deployment = serve.deployment(
        name=MODEL,
        ray_actor_options=actor_options(options),
        max_ongoing_requests=options.limits.queue,
        max_queued_requests=options.limits.queue,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        logging_config=_logging("WARNING"),
        **others,
    )
    return deployment(ModelReplica).bind(options)


def _logging(level: str) -> LoggingConfig:
    """Return what processes of Ray Serve write: lines of ``level`` and above, and none of their own for a request."""
    return LoggingConfig(log_level=level, enable_access_log=False)


class Ingress:
    """What answers the requests that Ray Serve's proxies get: an ASGI application in a process of its own.

    Args:
        workers: of :class:`ModelReplica`.
        create: makes the application; it is called once, in that process.

    """

    def __init__(self, workers: DeploymentHandle[Any], create: Callable[[Backend], ASGIApp]) -> None:
        self._workers, self._create = workers, create

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application, for Ray Serve."""
        return self._create(ServeBackend(self._workers))


def service(options: ReplicaOptions, scale: Autoscaling, create: Callable[[Backend], ASGIApp]) -> Application:
    """Return an application of Ray Serve: an :class:`Ingress` with what ``create`` makes, and workers that scale."""
    limits = options.limits
    both: dict[str, Any] = {"max_constructor_retry_count": UNATTENDED_STARTS, "max_surge_percent": SURGE_PERCENT}
    deployment = serve.deployment(
        name=INGRESS,
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=limits.queue + SPARE_REQUESTS,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=max(DRAIN_S, limits.seconds),
        logging_config=_logging("INFO"),
        **both,
    )
    workers = _workers(options, autoscaling_config=asdict(scale), **both)
    return deployment(serve.ingress()(Ingress)).bind(workers, create)


def actor_options(options: ReplicaOptions) -> dict[str, Any]:
    """Return what Ray reserves for a worker: processors by its threads, and a GPU where it is to use one."""
    return {"num_cpus": options.threads, "num_gpus": int(options.device == "cuda")}


def check_room(options: ReplicaOptions, replicas: int, there: dict[str, float]) -> None:
    """Raise InputError where a cluster of the resources ``there`` has no room for so many workers."""
    asked = {"CPU": options.threads * replicas, "GPU": replicas if options.device == "cuda" else 0}
    for kind, wanted in asked.items():
        if wanted > there.get(kind, 0):
            raise InputError(
                f"--replicas {replicas}: they want {wanted} {kind}s, and there are {there.get(kind, 0):g}; ask for "
                f"fewer{', or take --device cpu' if kind == 'GPU' else ', or for fewer --threads'}"
            )
