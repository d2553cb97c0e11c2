"""Joining a Ray cluster, or starting one of this process's own.

Whether a cluster answers is asked before Ray is: where none does, Ray waits for a quarter of an hour and
prints lines of its own all the while.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private.gcs_utils import GcsChannel
from ray._private.services import canonicalize_bootstrap_address
from ray.core.generated import gcs_service_pb2
from ray.exceptions import RayError
from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_fixed

from cluster.ray_engine.address import LOOPBACK_VARIABLE, RayAddress, given_address
from cluster.ray_engine.nodes import is_reachable
from cluster.ray_engine.object_store_budget import kept_steps_count, step_bytes
from cluster.ray_engine.session_folder import ray_folder
from cluster.run.settings import RunSettings
from freqgan.errors import FreqganError, InputError, RunError

START_ATTEMPTS = 3
QUIET_VARIABLE = "RAY_IGNORE_UNHANDLED_ERRORS"
"""Where it is set, Ray does not print the error of every call to a dead actor whose result nobody asks for."""

REORDER_VARIABLE, REORDER_WAIT_S = "RAY_actor_scheduling_queue_max_reorder_wait_seconds", 3
"""How long an actor waits for a call that was lost on its way before it refuses those after it; Ray's own value is 30.

An actor's calls come over one connection, in order: one that is not there before its successor does not come.
"""

WAIT_S = 10.0
"""For which a cluster that is coming up is waited for."""
POLL_S = 0.5
OTHER_SCHEMES = {
    "http": "the address of a dashboard, which is for `freqgan submit`",
    "https": "the address of a dashboard, which is for `freqgan submit`",
    "ray": "the address of a server for Ray clients, through which nothing can be trained",
}
CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"
GIVE = "give host:port of the head's control service, such as head:6379"
TOKEN_REMEDY = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to those of the cluster"


def connect(settings: RunSettings, address: str | None) -> bool:
    """Join the cluster at ``address``, or start one on this machine that has room for the steps of a training.

    Returns True when it was started here; see :func:`join_or_start`.
    """
    return join_or_start(address, lambda: object_store_bytes(settings))


def join_or_start(address: str | None, store_bytes: Callable[[], int], cpus: int | None = None) -> bool:
    """Join the cluster at ``address``, or start one on this machine; return True when it was started here.

    ``store_bytes`` gives the size of the object store of one that is started, and ``cpus`` its processors.

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
    start_local_ray(store_bytes(), cpus)
    return True


def _join(address: RayAddress) -> None:
    check_cluster(address)
    try:
        ray.init(address=address.text, log_to_driver=False, logging_level=logging.ERROR, namespace="freqgan")
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise join_error(address, error) from error


def start_local_ray(object_store_memory_bytes: int, cpus: int | None = None) -> None:
    """Start a Ray of this process's own, on loopback, with one CPU per core unless ``cpus`` is given.

    Started again when it does not come up: Ray's node gives up when its agents take more than 15 s to start,
    as they do on a busy machine or from a disk that has not read them yet.

    Raises:
        InputError: its folder cannot be used, see :mod:`cluster.ray_engine.session_folder`.
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


def stop_local_ray() -> None:
    """Stop the Ray that this process has started."""
    ray.shutdown()


def resources() -> dict[str, float]:
    """Return what the cluster that has been joined has in all: CPU, GPU and more."""
    return {str(name): float(amount) for name, amount in ray.cluster_resources().items()}


def head_answers() -> bool:
    """Return whether the head's control service can be reached; most of Ray goes on without it for a while."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return is_reachable(host.strip("[]"), int(port))


def _set_quiet() -> None:
    """Failures are told by the run itself, in one line each."""
    os.environ.setdefault(QUIET_VARIABLE, "1")
    logging.getLogger("ray").setLevel(logging.ERROR)


def object_store_bytes(settings: RunSettings) -> int:
    """Room for the steps that are kept, twice: what was dropped a moment ago may still be there."""
    return max(256 * 2**20, round(2 * kept_steps_count(settings) * step_bytes(settings)))


# -- whether a cluster answers ------------------------------------------------------------------


def check_cluster(address: RayAddress) -> None:
    """Return once a Ray cluster answers at ``address``; wait for WAIT_S at most.

    Raises:
        InputError: no address of a cluster, one that wants another token, or of another version of Ray.
        RunError: nothing answers there, or what answers is no Ray cluster.

    """
    host, port = _host_and_port(address)
    end_s = time.monotonic() + WAIT_S
    while (fault := _fault(address, host, port, end_s)) is not None:
        if time.monotonic() + POLL_S >= end_s:
            raise RunError(f"{address}: no Ray cluster answers there ({fault}); {address.remedy}")
        time.sleep(POLL_S)


def join_error(address: RayAddress, error: Exception) -> FreqganError:
    """For what Ray raises when a cluster that answers cannot be joined."""
    reasons = (str(error.__cause__ or error), str(error))
    reason = " ".join(next((text for text in reasons if text), type(error).__name__).split())
    if "Version mismatch" in reason:
        return InputError(f"{address}: {reason}; install the versions of the cluster here")
    if "authentication token" in reason:
        return InputError(f"{address}: the cluster wants a token, and there is none; {TOKEN_REMEDY}")
    if "No node info found" in reason:
        return RunError(
            f"{address}: the cluster has no node on this machine ({reason}); add it with "
            f"`ray start --address={address.text}`, or start the training on a machine of the cluster"
        )
    return RunError(f"{address}: the Ray cluster there cannot be joined ({reason}); {address.remedy}")


def _host_and_port(address: RayAddress) -> tuple[str, int]:
    """Return where Ray will look: in place of loopback it takes this machine's own address, unless told not to."""
    scheme, separator, _ = address.text.partition("://")
    if separator:
        what = OTHER_SCHEMES.get(scheme, f"of type {scheme}://")
        raise InputError(f"{address} is {what}; {GIVE}")
    try:
        host, _, port = str(canonicalize_bootstrap_address(address.text)).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"port {port} is no number from 1 to {2**16 - 1}")
        return host.strip("[]"), int(port)
    except ConnectionError as error:
        raise RunError(
            f"{address}: no Ray cluster runs on this machine; start one with `ray start --head`, give host:port of "
            f"another one's head, or leave it out to train on a Ray of the run's own"
        ) from error
    except ValueError as error:
        raise InputError(f"{address} is no address ({error}); give host:port, such as head:6379, or auto") from error


def _fault(address: RayAddress, host: str, port: int, end_s: float) -> str | None:
    """Why no cluster answers just now, or None where one does; raises what no waiting mends."""
    place = f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout=max(POLL_S, end_s - time.monotonic())).close()
    except (socket.gaierror, UnicodeError) as error:
        return f"the name {host} is not known: {getattr(error, 'strerror', error)}"
    except OSError as error:
        return f"{place}: {error.strerror or error}{_loopback_hint(address, host, port)}"
    return _fault_of_what_listens(address, place, max(POLL_S, end_s - time.monotonic()))


def _fault_of_what_listens(address: RayAddress, place: str, timeout_s: float) -> str | None:
    try:
        version = _version_at(place, timeout_s)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            _check_token(address)
            return None
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            raise InputError(f"{address}: what listens there is another server of Ray's; {GIVE}") from error
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"what listens at {place} said nothing for {timeout_s:.0f} s"
        return f"what listens at {place} is not the control service of a cluster: {error.code().name}"
    if version and version != ray.__version__:
        raise InputError(
            f"{address}: the cluster has Ray {version}, and this program Ray {ray.__version__}; install the cluster's "
            f"version here (pip install ray=={version}), or this one there"
        )
    return None


def _version_at(place: str, timeout_s: float) -> str:
    """Return the version of Ray that its control service at ``place`` tells: the quickest of its calls."""
    reply: Any = gcs_service_pb2
    channel: Any = GcsChannel(gcs_address=place)  # with TLS and the token, where the variables ask for them
    channel.connect()
    try:
        answer = channel.channel().unary_unary(CALL)(b"", timeout=timeout_s)
        return str(reply.CheckAliveReply.FromString(answer).ray_version)
    finally:
        channel.channel().close()


def _check_token(address: RayAddress) -> None:
    """InputError, unless Ray will use a token of its own accord: it does with "auto"."""
    places = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    has_one = any(places) or (Path.home() / ".ray" / "auth_token").exists()
    if address.text == "auto" and has_one and "RAY_AUTH_MODE" not in os.environ:
        return
    raise InputError(f"{address}: the cluster there refuses the token, or wants one; {TOKEN_REMEDY}")


def _loopback_hint(address: RayAddress, host: str, port: int) -> str:
    """Return, for a message, that a cluster on loopback was meant; "" where it was not."""
    meant = address.text.rpartition(":")[0]
    if meant in ("", host) or meant not in ("localhost", "127.0.0.1", "[::1]"):
        return ""
    try:
        socket.create_connection((meant.strip("[]"), port), timeout=POLL_S).close()
    except OSError:
        return f", which is this machine's address in place of {meant}"
    return (
        f"; Ray takes {host} in place of {meant}, where something listens: "
        f"set {LOOPBACK_VARIABLE}=0, as for its nodes, to stay on loopback"
    )
