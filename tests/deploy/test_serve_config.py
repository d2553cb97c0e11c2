"""What the overlay ``serve`` serves, run as it is written there: over HTTP, behind the proxy of Ray Serve."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.run.checkpoints import find_checkpoint
from cluster.run.trained_model import synthesiser_of
from cluster.serving.hosted_model import load_model
from cluster.serving.limits import Limits
from cluster.serving.model_source import ModelSource
from freqgan.errors import InputError
from freqgan.pixels import to_pixels
from launch.cli import serve_command
from launch.commands.serve import ServeRequest
from launch.serve_application import ServeArguments, application_with_token, build
from tests.support.commands import ROOT
from tests.support.manifests import serve_config
from tests.support.serving import (
    LocalBackend,
    apply_config,
    deployed_config,
    error_of,
    pixels_of,
    png_of,
    small_run,
    until,
    worker_sizes,
)

TOKEN = "0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 60.0
AT_ONCE = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1, "upscale_delay_s": 0,
           "downscale_delay_s": 2, "look_back_period_s": 0.5, "metrics_interval_s": 0.1}  # fmt: skip
"""Autoscaling that sees in half a second what it sees in half a minute otherwise."""


@pytest.fixture(scope="module")
def run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_run(tmp_path_factory.mktemp("served") / "run", small_shards, max_steps=2)


def config_for(run: str, **variables: str) -> dict[str, Any]:
    """The serveConfigV2 of the overlay with another model, and the variables that its pods have."""
    config = serve_config()
    (application,) = config["applications"]
    application["args"]["model"] = run
    application["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT)} | variables}
    application["deployments"] = [{"name": "model", "autoscaling_config": AT_ONCE}]
    return config


@pytest.fixture(scope="module")
def client(ray_cluster: None, run: str) -> Iterator[httpx.Client]:
    with (
        deployed_config(config_for(run, FREQGAN_TOKEN=TOKEN)) as url,
        httpx.Client(base_url=url, headers=HEADERS, timeout=PATIENCE_S) as client,
    ):
        yield client


@pytest.mark.long
def test_nothing_answers_on_a_cluster_without_a_token(ray_cluster: None, run: str) -> None:
    """The first test of this file: the others share one service."""
    with ExitStack() as stack, pytest.raises(RuntimeError, match="FREQGAN_TOKEN is not set, and other machines"):
        stack.enter_context(deployed_config(config_for(run)))


def test_an_application_without_a_token_is_not_made(monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    limits = Limits()
    backend = LocalBackend(load_model(ModelSource(run).newest()), limits)
    monkeypatch.delenv("FREQGAN_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"FREQGAN_TOKEN is not set.*openssl rand -hex 32"):
        application_with_token(ServeRequest(run), backend)
    monkeypatch.setenv("FREQGAN_TOKEN", "short")
    with pytest.raises(InputError, match="at least 16 letters"):
        application_with_token(ServeRequest(run), backend)


def test_an_image_is_that_of_the_command(client: httpx.Client, run: str) -> None:
    answer = client.post("/v1/images", json={"seed": 3})
    assert answer.status_code == 200, answer.text
    wanted = to_pixels(synthesiser_of(find_checkpoint(run)).sample(3, 1).images)[0].numpy().astype(np.int64)
    assert np.abs(pixels_of(answer.content) - wanted.transpose(1, 2, 0)).max() <= 1
    assert answer.headers["x-freqgan-version"] == "2"


def test_uploads_and_errors_pass_the_proxy(client: httpx.Client) -> None:
    files = {"image": ("a.png", png_of(8, 8), "image/png")}
    assert client.post("/v1/super-resolve", files=files).headers["content-type"] == "image/png"
    assert error_of(client.post("/v1/images", json={"class": "cat"}))[1] == "class"
    assert (
        client.post("/v1/images", content=b" " * 2**21, headers={"Content-Type": "application/json"}).status_code == 413
    )


def test_probes_are_open_and_all_else_wants_the_token(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url) as stranger:
        assert [stranger.get(path).status_code for path in ("/", "/healthz", "/readyz", "/-/healthz")] == [200] * 4
        assert 'src="static/page.js"' in stranger.get("/").text
        assert stranger.get("/static/page.js").status_code == 200
        assert [stranger.get(path).status_code for path in ("/metrics", "/v1/model", "/openapi.json")] == [401] * 3
        error_of(stranger.post("/v1/images", json={}))
        stranger.headers["Host"] = "models.example"
        assert stranger.get("/healthz").status_code == 200
    assert client.get("/v1/model").json()["limits"]["queue"] == 128
    assert 'freqgan_serve_requests_total{path="/v1/model",status="401"}' in client.get("/metrics").text


@contextmanager
def load(client: httpx.Client) -> Iterator[Counter[int]]:
    """Six clients that ask all the time; the statuses of what they get so far."""
    statuses, ended = Counter[int](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, headers=HEADERS, timeout=PATIENCE_S) as mine:
            while not ended.is_set():
                answer = mine.post("/v1/images", json={"seed": 1, "count": 4, "format": "zip"})
                statuses.update([answer.status_code])
                if answer.status_code != 200:
                    assert int(answer.headers["retry-after"]) >= 1
                    error_of(answer)

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(ask) for _ in range(6)]
        try:
            until(lambda: statuses[200] >= 10)
            yield statuses
            answered = statuses[200]
            until(lambda: statuses[200] >= answered + 10)
        finally:
            ended.set()
        for one in clients:
            one.result()


def test_a_killed_worker_is_replaced_and_load_starts_a_second_one(client: httpx.Client) -> None:
    (killed,) = worker_sizes()
    with load(client) as statuses:
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(worker_sizes().keys() - {killed}) == 2)
    assert statuses.keys() <= {200, 503}
    assert client.get("/readyz").status_code == 200


@pytest.mark.long
def test_other_arguments_are_rolled_out_without_a_gap(client: httpx.Client, run: str) -> None:
    until(lambda: len(worker_sizes()) == 1)  # two and what replaces them have no room here
    before = worker_sizes().keys()
    config = config_for(run, FREQGAN_TOKEN=TOKEN)
    config["applications"][0]["args"] |= {"max_count": 8}
    with load(client) as statuses:
        apply_config(config)
        until(lambda: client.get("/v1/model").json()["limits"]["count"] == 8)
        until(lambda: before.isdisjoint(worker_sizes()))
    assert statuses.keys() == {200}
    print(statuses)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"max_replica": 3}, "max_replica"),
        ({"max_replicas": 0}, "max_replicas"),
        ({"min_replicas": 9}, "max_replicas=8 is below min_replicas=9"),
        ({"device": "tpu"}, "device"),
        ({"max_upload": "8"}, "max_upload"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(run: str, changes: dict[str, object], part: str) -> None:
    (application,) = config_for(run)["applications"]
    with pytest.raises(InputError, match=part):
        build(application["args"] | changes)


def test_arguments_are_the_options_of_the_command(run: str) -> None:
    options = {name: one.default for name, one in inspect.signature(serve_command).parameters.items()}
    others = {"port", "host", "token_file", "replicas", "quiet", "address", "model"}
    scale = {"min_replicas", "max_replicas", "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s"}
    arguments = ServeArguments(model=run).model_dump(exclude=scale | {"model"})
    assert arguments == {name: value for name, value in options.items() if name not in others}
    assert ServeArguments(model=run).request() == ServeRequest(run)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        build({"model": str(tmp_path)})
