"""The workers on Ray Serve, and what is asked of them from an event loop."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from ray import serve
from ray.exceptions import GetTimeoutError, RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from cluster.serving.answers import Answer, Refusal
from cluster.serving.bodies import ImagesBody, RequestBody
from cluster.serving.replica import ModelReplica, ReplicaOptions
from freqgan.errors import InputError, RunError, first_line

NAME = "freqgan"
HEALTH_S = 5.0
DRAIN_S, DRAIN_POLL_S = 30.0, 0.2
STARTS = 2
"""How often a worker is started before its model is given up."""
FULL = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "as many requests wait as may: try again in a moment")
LOST = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the worker that had this request is gone: send it again")
SLOW = Refusal(HTTPStatus.GATEWAY_TIMEOUT, "the answer took too long: try again later, or ask for less")

Result = TypeVar("Result")


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
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        yield ServeBackend(_run(name, options, replicas, quiet))
    finally:
        if own_ray:  # which ends as a whole; that threads of Serve find it gone is no news
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        else:
            serve.delete(name)
            if not serve.status().applications:
                serve.shutdown()


def _run(name: str, options: ReplicaOptions, replicas: int, quiet: LoggingConfig) -> DeploymentHandle[Any]:
    deployment = serve.deployment(
        name="model",
        num_replicas=replicas,
        ray_actor_options=actor_options(options),
        max_ongoing_requests=options.limits.queue,
        max_queued_requests=options.limits.queue,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        max_constructor_retry_count=STARTS,
        logging_config=quiet,
    )
    try:
        return serve.run(deployment(ModelReplica).bind(options), name=name, route_prefix=None, logging_config=quiet)
    except (RuntimeError, RayError) as error:
        raise RunError(f"the workers did not come up: {first_line(error)}; see the log of Ray Serve") from error


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
