"""Addresses at which no cluster is, and folders in which no Ray can start: one line in seconds, with the true cause."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2

from cluster.ray_engine import connection
from cluster.ray_engine.address import OPTION, VARIABLE, RayAddress, given_address
from cluster.ray_engine.connection import check_cluster, join_error, start_local_ray
from cluster.ray_engine.jobs import Jobs
from cluster.ray_engine.session_folder import ray_folder
from freqgan.errors import InputError, RunError
from tests.support.commands import refused, run_command
from tests.support.ray_head import free_ports


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WAIT_S", 1.0)
    monkeypatch.delenv(VARIABLE, raising=False)


@contextmanager
def silent_server() -> Iterator[int]:
    """A port at which connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def web_server() -> Iterator[int]:
    """Something else that speaks HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class ControlService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """What a cluster's control service answers when it is asked whether it is there."""

    def __init__(self, version: str, code: grpc.StatusCode | None = None) -> None:
        self.version, self.code = version, code

    def service(self, handler_call_details: Any) -> Any:
        assert handler_call_details.method == connection.CALL
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, context: Any) -> bytes:
        if self.code is not None:
            context.abort(self.code, "told to")
        messages: Any = gcs_service_pb2
        return bytes(messages.CheckAliveReply(ray_version=self.version).SerializeToString())


@contextmanager
def control_service(port: int, version: str = ray.__version__, code: grpc.StatusCode | None = None) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([ControlService(version, code)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    yield
    server.stop(None)


def at(place: str) -> RayAddress:
    return RayAddress(OPTION, place)


def test_the_command_names_variable_address_and_remedy(
    small_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    training = ("train", "smoke", f"data={small_shards}", "executor=ray", f"run={tmp_path}/run")
    monkeypatch.setenv(VARIABLE, nowhere)
    by_variable = run_command(capsys, *training)
    assert by_variable.code == 3
    assert by_variable.err.splitlines() == [
        f"error: RAY_ADDRESS={nowhere}: no Ray cluster answers there ({nowhere}: Connection refused); correct it, "
        "start the cluster, or unset RAY_ADDRESS to train on this machine alone"
    ]
    assert f"{VARIABLE}={nowhere}" in run_command(capsys, *training, "--address", "auto").err  # as in Ray
    by_option = run_command(capsys, *training, "--address", "http://head:8265")
    assert "--address http://head:8265 is the address of a dashboard, which is for `freqgan submit`" in refused(
        by_option
    )


def test_which_address_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_address(None) is given_address("") is given_address("local") is None
    assert given_address("auto") == at("auto")
    monkeypatch.setenv(VARIABLE, "head:6379")
    named = RayAddress(VARIABLE, "head:6379")
    assert [given_address(option) for option in (None, "", "auto")] == [named] * 3
    assert given_address("other:6379") == at("other:6379")
    monkeypatch.setenv(VARIABLE, "local")
    assert given_address(None) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("http://head:8265", "is the address of a dashboard"),
        ("https://head", "is the address of a dashboard"),
        ("ray://head:10001", "is the address of a server for Ray clients"),
        ("tcp://head:1", "is of type tcp://; give host:port of the head's control service"),
        ("head", "is no address"),
        ("head:", "is no address"),
        ("head:port", "is no address"),
        (":6379", "is no address"),
        ("head:0", "port 0 is no number from 1 to 65535"),
        ("head:65536", "port 65536 is no number from 1 to 65535"),
        ("head:-1", "port -1 is no number"),
    ],
)
def test_what_is_no_address(text: str, fault: str) -> None:
    with pytest.raises(InputError) as told:
        check_cluster(at(text))
    assert f"--address {text} " in str(told.value)
    assert fault in str(told.value)


def test_where_no_cluster_answers() -> None:
    with silent_server() as silent, web_server() as web:
        faults = {
            f"127.0.0.1:{silent}": "said nothing for 1 s",
            f"127.0.0.1:{web}": "is not the control service of a cluster: UNAVAILABLE",
            f"127.0.0.1:{free_ports(1)[0]}": "Connection refused",
            "no..host:6379": "the name no..host is not known",
        }
        for place, fault in faults.items():
            with pytest.raises(RunError) as told:
                check_cluster(at(place))
            assert f"--address {place}: no Ray cluster answers there (" in str(told.value)
            assert fault in str(told.value)
            assert "or leave --address out" in str(told.value)


def test_clusters_that_cannot_be_joined() -> None:
    refusals = {
        ("0.8", None): f"the cluster has Ray 0.8, and this program Ray {ray.__version__}; install",
        ("", grpc.StatusCode.UNAUTHENTICATED): "refuses the token, or wants one; set RAY_AUTH_MODE=token",
        ("", grpc.StatusCode.UNIMPLEMENTED): "another server of Ray's; give host:port",
    }
    for (version, code), fault in refusals.items():
        port = free_ports(1)[0]
        with control_service(port, version, code), pytest.raises(InputError) as told:
            check_cluster(at(f"127.0.0.1:{port}"))
        assert fault in str(told.value)


def test_a_cluster_that_comes_up_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WAIT_S", 30.0)
    port = free_ports(1)[0]

    def later() -> None:
        time.sleep(1)
        with control_service(port):
            done.wait(30)

    done = threading.Event()
    thread = threading.Thread(target=later)
    thread.start()
    try:
        check_cluster(at(f"127.0.0.1:{port}"))
    finally:
        done.set()
        thread.join()


def test_what_ray_says_of_a_cluster_is_passed_on() -> None:
    mismatch = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9\n    Python: 3.12")
    assert "2.9 Python: 3.12; install the versions of the cluster" in str(join_error(at("h:1"), mismatch))
    failed = ConnectionError("Failed to connect")
    failed.__cause__ = RuntimeError("No node info found matching attributes: ''")
    assert "has no node on this machine" in str(join_error(at("h:1"), failed))
    assert "add it with `ray start --address=h:1`" in str(join_error(at("h:1"), failed))


def test_a_dashboard_that_says_nothing_and_one_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ray_engine.jobs.ANSWER_S", 0.5)
    with (
        silent_server() as port,
        pytest.raises(InputError, match=f"no Ray dashboard answers at http://127.0.0.1:{port}"),
    ):
        Jobs(f"http://127.0.0.1:{port}")
    with web_server() as port, pytest.raises(InputError, match="is no Ray dashboard; check the address"):
        Jobs(f"http://127.0.0.1:{port}")


# -- where a Ray of the run's own would be -----------------------------------------------------------


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_whose_sockets_would_have_too_long_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(long := tmp_path / ("x" * 90)))
    with pytest.raises(InputError) as told:
        start_local_ray(2**27)
    length = len(str(long)) + 61 + len(str(os.getpid()))
    assert f"sockets below {long}/ray ({variable}) would have {length} bytes, and 107 are" in str(told.value)
    assert "set RAY_TMPDIR to a folder with a short path" in str(told.value)
    assert not long.exists()


def test_a_folder_in_which_nothing_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/sys")  # where root may not either
    with pytest.raises(
        InputError, match=r"may not write to /sys, .*Ray's folder /sys/ray \(RAY_TMPDIR\).*set RAY_TMPDIR"
    ):
        start_local_ray(2**27)


def test_which_folder_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/sys")
    monkeypatch.setenv("TMPDIR", "/proc")
    assert ray_folder().source == "RAY_TMPDIR"
    monkeypatch.delenv("RAY_TMPDIR")
    assert (ray_folder().path, ray_folder().source) == (Path("/proc/ray"), "TMPDIR")
    monkeypatch.delenv("TMPDIR")
    assert (ray_folder().path, ray_folder().source) == (Path("/tmp/ray"), "")
    assert os.fspath(ray_folder().logs) == "/tmp/ray/session_latest/logs"


def test_a_file_where_the_folder_is_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "r").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(file))
    monkeypatch.setattr("cluster.ray_engine.session_folder.LONGEST_SOCKET_PATH", 1000)
    with pytest.raises(RunError, match=r"/r/ray \(RAY_TMPDIR\) cannot be made \(Not a directory\); set RAY_TMPDIR"):
        ray_folder().check()
