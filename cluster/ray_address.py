"""The address of a Ray cluster to train on, and whether one answers there.

It is asked before Ray is: for an address at which no cluster is, Ray waits for a quarter of an hour and prints lines of
its own all the while.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freqgan.errors import FreqganError, InputError, RunError

OPTION, VARIABLE = "--address", "RAY_ADDRESS"
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Read when Ray is imported. Where it is 0, a Ray that starts here binds all its servers to loopback, as it always
does on Windows and macOS; without it they listen on every interface, whatever ``_node_ip_address`` says (2.60)."""
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


@dataclass(frozen=True)
class RayAddress:
    """As it was given: ``text`` by ``source``, an option or a variable."""

    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}={self.text}" if self.source == VARIABLE else f"{self.source} {self.text}"

    @property
    def remedy(self) -> str:
        """What helps where there is no cluster."""
        without = f"unset {self.source}" if self.source == VARIABLE else f"leave {self.source} out"
        return f"correct it, start the cluster, or {without} to train on this machine alone"


def given_address(option: str | None) -> RayAddress | None:
    """That of the option, or of the variable; None where a Ray of the run's own is to be started.

    As in Ray, "local" stands for such a one, and the variable comes before the option's "auto".
    """
    variable = os.environ.get(VARIABLE) or None
    chosen = RayAddress(VARIABLE, variable) if variable and option in (None, "", "auto") else None
    if chosen is None and option:
        chosen = RayAddress(OPTION, option)
    return None if chosen is None or chosen.text == "local" else chosen


def check_cluster(address: RayAddress) -> None:
    """Returns when a Ray cluster answers at ``address``; waits for WAIT_S at most.

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
    """Where Ray will look: in place of loopback it takes this machine's own address, unless it is told not to."""
    from ray._private.services import canonicalize_bootstrap_address  # late: it takes a second, and not all runs do

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
    import grpc
    import ray

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
    """The version of Ray that its control service at ``place`` tells: the quickest of its calls."""
    from ray._private.gcs_utils import GcsChannel
    from ray.core.generated import gcs_service_pb2

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
    """Where a cluster on loopback alone is what was meant."""
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
