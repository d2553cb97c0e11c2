"""Joining a Ray cluster, or starting one of this process's own."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError
from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_fixed

from cluster.ray_address import RayAddress, check_cluster, given_address, join_error
from cluster.ray_folder import ray_folder
from cluster.ray_seats import reaches
from cluster.retention import kept_steps_count, step_bytes
from cluster.settings import RunSettings
from freqgan.errors import InputError, RunError

START_ATTEMPTS = 3
QUIET_VARIABLE = "RAY_IGNORE_UNHANDLED_ERRORS"
"""Where it is set, Ray does not print the error of every call to a dead actor whose result nobody asks for."""

REORDER_VARIABLE, REORDER_WAIT_S = "RAY_actor_scheduling_queue_max_reorder_wait_seconds", 3
"""How long an actor waits for a call that was lost on its way before it refuses those after it; Ray's own value is 30.

An actor's calls come over one connection, in order: one that is not there before its successor does not come.
"""


def connect(settings: RunSettings, address: str | None) -> bool:
    """Joins the cluster at ``address``, or starts one on this machine; True when it was started here.

    A cluster that this process has already joined is used as it is, and so is the one that RAY_ADDRESS names
    (a submitted job has it set). Any other cluster on this machine is left alone: it may be somebody else's,
    or what a killed run has left behind.
    """
    _set_quiet()
    if ray.is_initialized():
        return False
    if (there := given_address(address)) is not None:
        _join(there)
        return False
    start_local_ray(object_store_bytes(settings))
    return True


def _join(address: RayAddress) -> None:
    check_cluster(address)
    try:
        ray.init(address=address.text, log_to_driver=False, logging_level=logging.ERROR, namespace="freqgan")
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise join_error(address, error) from error


def start_local_ray(object_store_memory_bytes: int, cpus: int | None = None) -> None:
    """Starts a Ray of this process's own, on loopback, with one CPU per core unless ``cpus`` is given.

    Started again when it does not come up: Ray's node gives up when its agents take more than 15 s to start,
    as they do on a busy machine or from a disk that has not read them yet.

    Raises:
        InputError: its folder cannot be used, see :mod:`cluster.ray_folder`.
        RunError: it did not come up, START_ATTEMPTS times in a row.

    """
    os.environ.setdefault(REORDER_VARIABLE, str(REORDER_WAIT_S))
    attempts = Retrying(
        stop=stop_after_attempt(START_ATTEMPTS),
        retry=retry_if_not_exception_type(InputError),
        wait=wait_fixed(2),
        after=lambda _: ray.shutdown(),
        reraise=True,
    )
    try:
        attempts(_start, object_store_memory_bytes, cpus)
    except InputError:
        raise
    except Exception as error:  # Ray raises bare Exceptions here
        why = str(error)
        if not isinstance(error, RunError):  # that of the folder says what helps
            why += f"; its logs are in {ray_folder().logs}. Free memory or processors"
        raise RunError(
            f"Ray did not start on this machine, {START_ATTEMPTS} times in a row: {why}, or run with executor=inline"
        ) from error


def _start(object_store_memory_bytes: int, cpus: int | None) -> None:
    ray_folder().check()
    ray.init(
        address="local",  # never one that is there already: it may be what a killed run has left behind
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="freqgan",
        _node_ip_address="127.0.0.1",
        object_store_memory=object_store_memory_bytes,
    )


def head_answers() -> bool:
    """Whether the head's control service can be reached; most of Ray goes on without it for a while."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return reaches(host.strip("[]"), int(port))


def _set_quiet() -> None:
    """Failures are told by the run itself, in one line each."""
    os.environ.setdefault(QUIET_VARIABLE, "1")
    logging.getLogger("ray").setLevel(logging.ERROR)


def object_store_bytes(settings: RunSettings) -> int:
    """Room for the steps that are kept, twice: what was dropped a moment ago may still be there."""
    return max(256 * 2**20, round(2 * kept_steps_count(settings) * step_bytes(settings)))
