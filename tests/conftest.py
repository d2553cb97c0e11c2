"""Fixtures shared by all tests: one Ray cluster and one S3 server for the session, real images made by the tests."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from cluster.data.packing import pack
from cluster.ray_engine.address import LOOPBACK_VARIABLE
from cluster.storage.folder import Folder, open_folder
from freqgan.generation.likelihood import log_likelihoods
from tests.support.manifests import manifest_variables
from tests.support.ray_head import Head, running_head
from tests.support.runs import write_small_shards
from tests.support.s3_server import BUCKET, s3_server

__all__ = ["s3_server"]

os.environ.setdefault(LOOPBACK_VARIABLE, "0")  # before anything imports Ray
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that tests start, beside other tests

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


SLOWEST_FILES = 10
WITH_RAY = "ray"
"""The group of all tests that share the Ray cluster or the Ray head."""


class FileScheduling(LoadGroupScheduling):  # type: ignore[misc]  # xdist is not annotated
    """Gives a group of tests to one process, and of the others each file."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid)).partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling:
    """Returns the scheduler of ``--dist loadgroup``."""
    return FileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests with the Ray cluster or head into one group, so that there is one of each, and before all others.

    They take longest: of several processes none is to begin them last. Among them those marked "last" are the last.
    """
    with_ray = {item for item in items if {"ray_cluster", "ray_head"} & set(getattr(item, "fixturenames", ()))}
    for item in with_ray:
        item.add_marker(pytest.mark.xdist_group(WITH_RAY))
    items.sort(key=lambda item: (item not in with_ray, item.get_closest_marker("last") is not None))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the files that took longest, where the slowest tests are asked for."""
    if not config.getoption("durations"):
        return
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section(f"slowest {SLOWEST_FILES} files")
    for path, duration_s in sorted(seconds.items(), key=lambda item: -item[1])[:SLOWEST_FILES]:
        terminalreporter.line(f"{duration_s:6.1f}s {path}")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_cifar10() -> Path:
    """The folder of CIFAR-10 shards, where the real images are at hand."""
    folder = SHARED_DATA / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 96 labelled 16x16 pictures (two classes): smooth gradients with a random edge, seeded."""
    return write_small_shards(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 130 pictures of noise, 16x16: as many as a measurement of 64 needs."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes of the session: what is learned of these images is so once
    source, target = tmp_path_factory.mktemp("held"), shared / "held-out" / "shards"
    with FileLock(shared / "held-out.lock"):
        if not target.exists():
            rng = np.random.default_rng(5)
            for number in range(130):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(source / f"{number}.png")
            pack(str(source), str(target))
    return target


@pytest.fixture(scope="session")
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 130 times the same grey, 16x16."""
    source, target = tmp_path_factory.mktemp("grey"), tmp_path_factory.mktemp("grey-shards") / "shards"
    for number in range(130):
        Image.new("RGB", (16, 16), (77, 77, 77)).save(source / f"{number}.png")
    pack(str(source), str(target))
    return target


@pytest.fixture
def brief_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of the two-sample test learns for three steps: for tests of what is done with scores."""
    monkeypatch.setattr("freqgan.metrics.two_sample_test.STEPS", 3)


@pytest.fixture
def brief_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods take one step over 8 images: for tests of what is done with them."""
    monkeypatch.setitem(log_likelihoods.__wrapped__.__kwdefaults__, "steps", 1)  # type: ignore[attr-defined]
    monkeypatch.setattr("cluster.evaluation.likelihood.MOST", 8)


@pytest.fixture(scope="session")
def ray_cluster(s3_server: str) -> Iterator[None]:
    """A Ray instance on loopback that all tests of the session share; its processes know the S3 server."""
    import ray

    from cluster.ray_engine.connection import start_local_ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_metrics_report_interval_ms", "500")
    start_local_ray(256 * 2**20, cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_head(s3_server: str) -> Iterator[Head]:
    """A Ray head with a dashboard and a token, with the variables of the manifests; its jobs know the S3 server."""
    variables = manifest_variables("train.yaml")
    # In /tmp: Ray's sockets have paths that may be no longer than 107 characters.
    with TemporaryDirectory(prefix="rh-", dir="/tmp") as folder, running_head(Path(folder), **variables) as head:
        yield head


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder, on a disk and in a bucket."""
    if request.param == "disk":
        return open_folder(str(tmp_path / "data"))
    request.getfixturevalue("s3_server")
    return open_folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
