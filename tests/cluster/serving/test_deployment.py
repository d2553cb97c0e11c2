"""Workers on Ray Serve behind HTTP: shared passes, promotions without a gap, and what clients see of lost workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import httpx
import numpy as np
import pytest

from cluster.run.checkpoints import find_checkpoint
from cluster.run.model_registry import ModelRegistry
from cluster.run.trained_model import synthesiser_of
from cluster.serving.answers import Refusal
from cluster.serving.application import create_application
from cluster.serving.bodies import ImagesBody
from cluster.serving.deployment import ServeBackend, check_room, deployed
from cluster.serving.limits import Limits
from cluster.serving.replica import ReplicaOptions
from cluster.serving.server import listen
from cluster.serving.telemetry import Telemetry
from freqgan.errors import InputError
from freqgan.pixels import to_pixels
from tests.support.serving import error_of, pixels_of, png_of, retrained_model, running, until, worker_sizes

PATIENCE_S = 60.0
JSON_ERRORS = (429, 503, 504)


class Service(NamedTuple):
    """A service that runs: its URL, its workers, the model behind them, and what it counts."""

    url: str
    backend: ServeBackend
    registry: ModelRegistry
    telemetry: Telemetry
    lines: list[str]


@pytest.fixture(scope="module")
def service(ray_cluster: None, gan_run: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker of a retrained model of two versions."""
    registry = retrained_model(tmp_path_factory.mktemp("served") / "m", gan_run)
    limits, telemetry, lines = Limits(queue=64), Telemetry(), list[str]()
    with deployed(ReplicaOptions(registry.folder.url, follow_s=0.1, limits=limits)) as backend:
        application = create_application(
            backend, limits, telemetry=telemetry, log=lines.append, note=lines.append, watch_s=0.2
        )
        with running(application) as url:
            yield Service(url, backend, registry, telemetry, lines)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        yield client


class Samples:
    """Images of both versions, as the command generates them."""

    def __init__(self, run: str, seeds: range) -> None:
        models = {n: synthesiser_of(find_checkpoint(run, step=step)) for n, step in ((1, 4), (2, 6))}
        self._images = {
            (str(number), seed): to_pixels(model.sample(seed, 1, whole_blocks=False).images)[0].numpy().astype(np.int64)
            for number, model in models.items()
            for seed in seeds
        }

    def check(self, seed: int, answer: httpx.Response) -> str:
        """Hold an answer against the image that its version makes of ``seed``; return the version."""
        version = answer.headers["x-freqgan-version"]
        wanted = self._images[version, seed].transpose(1, 2, 0)
        assert np.abs(pixels_of(answer.content) - wanted).max() <= 1
        return version


def version_of(client: httpx.Client) -> str:
    return str(client.get("/v1/model").json()["version"])


def asked(url: str, seeds: range, clients: int, on_answer: Callable[[int, httpx.Response], None]) -> list[float]:
    """Ask for an image of every seed from so many clients at once; the seconds of each."""

    async def run() -> list[float]:
        seconds, left = list[float](), list(seeds)
        connections = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=connections) as client:

            async def one() -> None:
                while left:
                    seed = left.pop()
                    begun_s = time.perf_counter()
                    answer = await client.post("/v1/images", json={"seed": seed})
                    seconds.append(time.perf_counter() - begun_s)
                    on_answer(seed, answer)

            await asyncio.gather(*(one() for _ in range(clients)))
        return seconds

    return asyncio.run(run())


def test_clients_at_once_share_passes_and_get_the_images_of_their_seeds(service: Service, gan_run: str) -> None:
    samples, versions = Samples(gan_run, range(24)), Counter[str]()
    asked(service.url, range(24), 12, lambda seed, answer: versions.update([samples.check(seed, answer)]))
    assert versions == {"1": 24}
    lines = service.telemetry.text().decode().splitlines()
    passes = next(float(line.split()[1]) for line in lines if line.startswith("freqgan_serve_pass_images_count"))
    assert passes < 24


def test_a_promotion_and_a_roll_back_are_followed_without_a_gap(
    service: Service, client: httpx.Client, gan_run: str
) -> None:
    samples = Samples(gan_run, range(1))
    with service.registry.lease() as lease:
        for number, move in (("2", lambda: service.registry.promote(2, lease, "test")),
                             ("1", lambda: service.registry.roll_back(lease))):  # fmt: skip
            move()
            until(lambda: samples.check(0, client.post("/v1/images", json={"seed": 0})) == number)  # noqa: B023
    until(lambda: [line for line in service.lines if line.startswith("version")][-1] == "version 1 answers, step 4")


def test_uploads_and_errors_come_back_from_the_worker(client: httpx.Client) -> None:
    files = {"image": ("a.png", png_of(8, 8), "image/png")}
    assert client.post("/v1/super-resolve", files=files).headers["content-type"] == "image/png"
    damaged = client.post("/v1/super-resolve", files={"image": ("a.png", png_of(8, 8)[:-30])})
    assert damaged.status_code == 422
    assert error_of(damaged)[1] == "image"
    assert error_of(client.post("/v1/images", json={"class": "cat"}))[1] == "class"


def test_an_answer_that_takes_too_long_is_given_up_and_the_next_one_comes(
    service: Service, client: httpx.Client
) -> None:
    refusal = asyncio.run(service.backend.images(ImagesBody(count=64), 1e-4))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 504
    assert client.post("/v1/images", json={"count": 2}).status_code == 200


def test_workers_for_which_there_is_no_room_are_refused_before_they_start() -> None:
    options = ReplicaOptions("run", device="cuda")
    with pytest.raises(InputError, match="--device cpu"):
        check_room(options, 1, {"CPU": 4.0})
    with pytest.raises(InputError, match="--threads"):
        check_room(ReplicaOptions("run", threads=3), 2, {"CPU": 4.0})
    check_room(options, 2, {"CPU": 4.0, "GPU": 2.0})


def test_a_port_in_use_is_refused() -> None:
    with listen("127.0.0.1", 0) as listener, pytest.raises(InputError, match="give another port"):
        listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.long
def test_a_thousand_requests_of_32_clients_are_answered_and_memory_stays(service: Service, gan_run: str) -> None:
    samples, statuses = Samples(gan_run, range(200)), Counter[int]()

    def on_answer(seed: int, answer: httpx.Response) -> None:
        statuses.update([answer.status_code])
        samples.check(seed, answer)

    asked(service.url, range(200), 32, on_answer)
    (before,) = worker_sizes().values()
    seconds = sorted(s for _ in range(5) for s in asked(service.url, range(200), 32, on_answer))
    (after,) = worker_sizes().values()
    print(
        f"p50 {seconds[500]:.3f} s, p90 {seconds[900]:.3f} s, p99 {seconds[990]:.3f} s, most {seconds[-1]:.3f} s, "
        f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after"
    )
    assert statuses == {200: 1200}
    assert after - before < 32 * 2**20


@pytest.mark.long
def test_promotions_and_roll_backs_under_load_cost_no_request(service: Service, gan_run: str) -> None:
    samples, versions = Samples(gan_run, range(100)), Counter[str]()
    with service.registry.lease() as lease:

        def on_answer(seed: int, answer: httpx.Response) -> None:
            assert answer.status_code == 200
            versions.update([samples.check(seed, answer)])
            count = sum(versions.values())
            if count % 200 == 100:
                service.registry.promote(2, lease, "test")
            elif count % 200 == 0:
                service.registry.roll_back(lease)

        for _ in range(8):
            asked(service.url, range(100), 16, on_answer)
    print(versions)
    assert sum(versions.values()) == 800
    assert min(versions["1"], versions["2"]) > 50


@pytest.mark.long
@pytest.mark.last
def test_a_killed_worker_costs_requests_that_are_told_so_and_no_wrong_image(
    service: Service, client: httpx.Client, gan_run: str
) -> None:
    samples, statuses = Samples(gan_run, range(200)), Counter[int]()
    killed: list[int] = []

    def on_answer(seed: int, answer: httpx.Response) -> None:
        statuses.update([answer.status_code])
        if answer.status_code == 200:
            samples.check(seed, answer)
        else:
            assert answer.status_code in JSON_ERRORS
            assert int(answer.headers["retry-after"]) >= 1
            error_of(answer)
        if sum(statuses.values()) == 50:
            killed.extend(worker_sizes())
            os.kill(killed[0], signal.SIGKILL)

    asked(service.url, range(200), 16, on_answer)
    print(statuses)
    assert statuses[200] >= 150
    until(lambda: client.get("/readyz").status_code == 200)
    assert set(worker_sizes()).isdisjoint(killed)
    samples.check(7, client.post("/v1/images", json={"seed": 7}))
