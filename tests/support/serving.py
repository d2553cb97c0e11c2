"""A service of small models: in this process, and over HTTP with workers on Ray Serve."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from starlette.types import ASGIApp

from cluster.run.checkpoints import find_checkpoint
from cluster.run.model_record import Lineage, TrainingData, Verdict
from cluster.run.model_registry import ModelRegistry
from cluster.serving.answers import Answer, Refusal
from cluster.serving.batch import ImagesTask, run_batch
from cluster.serving.bodies import ImagesBody, RequestBody
from cluster.serving.hosted_model import HostedModel
from cluster.serving.limits import Limits
from cluster.serving.server import address_of, listen
from cluster.serving.uploads import answer_upload
from tests.support.flows import TINY_FLOW
from tests.support.ray_head import free_ports
from tests.support.runs import tiny_run_settings, trained

FLOWS: dict[str, Any] = {
    "experts": {"default": "flow"}, "plan": {"strict_nesting": True}, "image_stage": {"enabled": False},
    "flow": {"coarse_network": TINY_FLOW, "band_network": TINY_FLOW}, "generation": {"evaluations": 2},
}  # fmt: skip

DEPLOY_S = 60.0


def small_run(folder: Path, shards: Path, **changes: Any) -> str:
    """A run of six steps with two classes; its folder."""
    trained(tiny_run_settings(folder, shards, **{"classes": 2, "max_steps": 6, **changes}))
    return str(folder)


def retrained_model(folder: Path, run: str, versions: int = 2) -> ModelRegistry:
    """A model whose versions are the checkpoints of a run, oldest first, with the first in use."""
    registry = ModelRegistry(str(folder))
    with registry.lease() as lease:
        for number, step in enumerate((2, 4, 6)[-versions:], 1):
            registry.add(number, find_checkpoint(run, step=step), _lineage(step))
        registry.promote(1, lease, "test")
    return registry


def _lineage(step: int) -> Lineage:
    return Lineage(
        name="m", begins_with=None, begun_at_s=0.0, code="0", settings={}, step=step, images=8 * step, digest="",
        data=TrainingData(url="", shards=(), images=0, new_images=0), held_out="", scores={},
        verdict=Verdict(holds=True, rows=()),
    )  # fmt: skip


class LocalBackend:
    """A model in this process that answers one request at a time."""

    def __init__(self, hosted: HostedModel, limits: Limits) -> None:
        self.hosted, self.limits = hosted, limits

    async def images(self, body: ImagesBody, seconds: float) -> Answer | Refusal:
        return run_batch(self.hosted, [ImagesTask(body, time.monotonic() + seconds, self.limits.pixels)])[0]

    async def upload(self, form: RequestBody, seconds: float) -> Answer | Refusal:
        return answer_upload(self.hosted, form, self.limits, time.monotonic() + seconds)

    async def facts(self, seconds: float) -> dict[str, Any] | Refusal:
        return self.hosted.facts()


def pixels_of(png: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(Image.open(io.BytesIO(png))).astype(np.int64)


def png_of(width: int, height: int, seed: int = 0, mode: str = "RGB") -> bytes:
    """A PNG of noise."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def running(application: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of loopback, in a thread; its URL."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(application, lifespan="on", log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def deployed_config(config: dict[str, Any]) -> Iterator[str]:
    """Serve in the Ray of this process what ``config`` says, as the dashboard of a head does; the URL of its proxy."""
    (port,) = free_ports(1)
    schema = ServeDeploySchema.model_validate(config | {"http_options": {"host": "127.0.0.1", "port": port}})
    serve.start(schema.proxy_location, schema.http_options.model_dump(), logging_config=schema.logging_config)
    try:
        apply_config(config)
        for one in schema.applications:
            _wait_for_application(one.name)
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def apply_config(config: dict[str, Any]) -> None:
    """Have Ray Serve, which runs, serve what ``config`` says; it does so after a while."""
    controller = _get_global_client()
    assert controller is not None
    controller.deploy_apps(ServeDeploySchema.model_validate(config))


def _wait_for_application(name: str) -> None:
    end_s = time.monotonic() + DEPLOY_S
    while (there := serve.status().applications.get(name)) is None or there.status != "RUNNING":
        if (there is not None and there.status == "DEPLOY_FAILED") or time.monotonic() > end_s:
            raise RuntimeError(f"{name}: {there}")
        time.sleep(0.1)


def worker_sizes() -> dict[int, int]:
    """The process ids of the workers of services in this process's Ray, and the bytes that each holds."""
    sizes = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and _is_worker(folder):
                sizes[int(folder.name)] = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return sizes


def _is_worker(process: Path) -> bool:
    command = (process / "cmdline").read_bytes()
    return (
        b"ServeReplica:freqgan" in command
        and b":model" in command
        and _parent(_parent(process)).name == str(os.getpid())
    )


def _parent(process: Path) -> Path:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return process.with_name(fields[1])


def error_of(answer: httpx.Response) -> tuple[str, str | None]:
    """The message and the field of an error, in the one form that all have."""
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "field"}
    assert "Traceback" not in answer.text
    assert "File " not in answer.text
    return body["error"]["message"], body["error"]["field"]


def until(holds: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait until it holds."""
    end_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)
