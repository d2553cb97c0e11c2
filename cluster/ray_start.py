"""Joining a Ray cluster, or starting one of this process's own."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError
from tenacity import Retrying, stop_after_attempt, wait_fixed

from cluster.settings import RunSettings
from freqgan.errors import RunError

START_ATTEMPTS = 3


def connect(settings: RunSettings, address: str | None) -> bool:
    """Joins the cluster at ``address``, or starts one on this machine; True when it was started here.

    A cluster that this process has already joined is used as it is, and so is the one that RAY_ADDRESS names
    (a submitted job has it set). Any other cluster on this machine is left alone: it may be somebody else's,
    or what a killed run has left behind.
    """
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="freqgan")
        except (ConnectionError, RayError, ValueError, RuntimeError) as error:
            raise RunError(f"--address {address}: no Ray cluster answers there ({error}); check the address") from error
        return False
    start_local_ray(object_store_bytes(settings))
    return True


def start_local_ray(object_store_memory_bytes: int, cpus: int | None = None) -> None:
    """Starts a Ray of this process's own, on loopback, with one CPU per core unless ``cpus`` is given.

    Started again when it does not come up: Ray's node gives up when its agents take more than 15 s to start,
    as they do on a busy machine or from a disk that has not read them yet.

    Raises:
        RunError: it did not come up, START_ATTEMPTS times in a row.

    """
    attempts = Retrying(
        stop=stop_after_attempt(START_ATTEMPTS), wait=wait_fixed(2), after=lambda _: ray.shutdown(), reraise=True
    )
    try:
        attempts(
            ray.init,
            address="local",  # never one that is there already: it may be what a killed run has left behind
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="freqgan",
            _node_ip_address="127.0.0.1",
            object_store_memory=object_store_memory_bytes,
        )
    except Exception as error:  # Ray raises bare Exceptions here
        raise RunError(
            f"Ray did not start on this machine, {START_ATTEMPTS} times in a row ({error}); its logs are in "
            "/tmp/ray/session_latest/logs. Free memory or processors, or run with executor=inline"
        ) from error


def object_store_bytes(settings: RunSettings) -> int:
    """Room for the steps that are kept (uint8 images, float32 sub-images, their low bands, gradients), twice."""
    image = settings.batch * settings.channels * settings.image_size**2
    steps = settings.window + settings.feedback.lag + 2 * settings.snapshot_every + 2
    return max(256 * 2**20, 2 * steps * image * (1 + 6 * settings.plan.cycles))
