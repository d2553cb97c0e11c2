"""The HTTP service as an application of Ray Serve, for clusters that run one: RayService of Kubernetes, `serve deploy`.

The import path is ``launch.serve_application:build``, and ``args`` are those of :class:`ServeArguments`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator
from starlette.types import ASGIApp

from cluster.serving.backend import Backend
from cluster.serving.deployment import Application, Autoscaling, service
from cluster.serving.limits import MEBIBYTE, Limits
from freqgan.setting_group import SettingGroup
from launch.commands.serve import ServeRequest, application_for, replica_options
from launch.settings.exposure import require_token
from launch.settings.load import validate


class ServeArguments(SettingGroup):
    """What is served, and how: the options of ``freqgan serve``, and how many workers there are."""

    model: str = Field(description="A run, an exported folder, or <models>/<name>: a folder or s3:// URL.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="On which a worker generates.")
    threads: int = Field(1, ge=1, le=1024, description="Of each worker, on a CPU.")
    max_count: int = Field(64, ge=1, le=4096, description="Images of one request.")
    max_evaluations: int = Field(200, ge=1, le=1000, description="Passes of a flow expert's network.")
    max_upload: float = Field(8.0, ge=0.001, le=1024, description="Size of an upload, in MiB.")
    max_pixels: int = Field(4 * MEBIBYTE, ge=1, description="Pixels of an image that is sent, by its header.")
    max_queue: int = Field(128, ge=1, le=65536, description="Requests that are answered or wait.")
    max_seconds: float = Field(60.0, ge=0.1, le=86400, description="For an answer.")
    live: bool = Field(False, description="Whether the page shows the training of the run as well.")
    follow: bool = Field(False, description="Whether newer checkpoints of a run are loaded as they come.")
    poll: float = Field(5.0, ge=0.1, le=86400, description="Seconds between looks for newer models.")
    min_replicas: int = Field(1, ge=1, le=1024, description="Fewest workers.")
    max_replicas: int = Field(1, ge=1, le=1024, description="Most workers.")
    target_ongoing_requests: float = Field(16.0, gt=0, description="Requests of a worker; more start another worker.")
    upscale_delay_s: float = Field(30.0, ge=0, description="For which there must be more before that.")
    downscale_delay_s: float = Field(600.0, ge=0, description="For which there must be fewer before a worker ends.")

    @model_validator(mode="after")
    def _order(self) -> ServeArguments:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is below min_replicas={self.min_replicas}")
        return self

    def request(self) -> ServeRequest:
        """Return what the command ``freqgan serve`` would be asked for; it holds no token."""
        limits = Limits(
            count=self.max_count, evaluations=self.max_evaluations, upload_bytes=round(self.max_upload * MEBIBYTE),
            pixels=self.max_pixels, queue=self.max_queue, seconds=self.max_seconds,
        )  # fmt: skip
        return ServeRequest(
            self.model, device=self.device, threads=self.threads, limits=limits, live=self.live, follow=self.follow,
            poll_s=self.poll,
        )  # fmt: skip

    def scale(self) -> Autoscaling:
        """Return how many workers there are to be."""
        return Autoscaling(
            self.min_replicas, self.max_replicas, self.target_ongoing_requests, self.upscale_delay_s,
            self.downscale_delay_s,
        )  # fmt: skip


def build(arguments: dict[str, Any]) -> Application:
    """Return the application of Ray Serve that ``arguments``, those of :class:`ServeArguments`, ask for.

    The process that answers HTTP does not start without a token, see :func:`application_with_token`.

    Raises:
        InputError: an argument that is unknown or refused, or there is no model.

    """
    checked = validate(arguments, ServeArguments)
    request = checked.request()
    return service(replica_options(request), checked.scale(), partial(application_with_token, request))


def application_with_token(request: ServeRequest, backend: Backend) -> ASGIApp:
    """Return what answers HTTP; what requests must carry is read from the variable FREQGAN_TOKEN.

    Raises:
        InputError: it is not set, or no token.

    """
    log = logging.getLogger("ray.serve").info
    return application_for(replace(request, token=require_token()), backend, log, log)
