"""One worker: a model in a process of its own, requests in batches, and new versions put in its place between them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from freqgan.runtime.imports import uncollected

with uncollected():
    import torch

    from cluster.serving.answers import Answer, Refusal
    from cluster.serving.batch import ImagesTask, run_batch
    from cluster.serving.bodies import ImagesBody, RequestBody
    from cluster.serving.hosted_model import HostedModel, load_model
    from cluster.serving.limits import Limits
    from cluster.serving.model_source import ModelSource, ModelVersion
    from cluster.serving.pass_queue import PassQueue
    from cluster.serving.uploads import answer_upload, needs_model
    from cluster.stages.malloc import keep_freed_pages
    from freqgan.errors import FreqganError, first_line

MOST_WAIT_S = 300.0
"""Between two attempts at a version that cannot be loaded; the waiting doubles up to this."""

Result = TypeVar("Result")
log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ReplicaOptions:
    """What a worker is to do.

    Attributes:
        model: a run, or a retrained model.
        device: cpu or cuda.
        threads: of torch on a CPU.
        follow_s: seconds between looks for a newer version; None to stay with the first.
        limits: of requests.

    """

    model: str
    device: str = "cpu"
    threads: int = 1
    follow_s: float | None = None
    limits: Limits = field(default_factory=Limits)


class ModelReplica:
    """A worker. Passes of the model take turns in one thread, styles and decompositions in another.

    Args:
        options: what it is to do.

    Raises:
        InputError: there is no model.

    """

    def __init__(self, options: ReplicaOptions) -> None:
        keep_freed_pages()
        self.options, self.source = options, ModelSource(options.model)
        self._device = torch.device(options.device)
        self._passes, self._others = (ThreadPoolExecutor(1, name, self._begin) for name in ("passes", "uploads"))
        self._queue = PassQueue(self._run, self._passes)
        self._fault: str | None = None
        self._ended = threading.Event()
        self._hosted = self._passes.submit(load_model, self.source.newest(), self._device).result()
        if options.follow_s is not None:
            threading.Thread(target=self._follow, args=(options.follow_s,), daemon=True, name="follow").start()

    def _begin(self) -> None:
        torch.set_num_threads(self.options.threads)

    # -- answers -------------------------------------------------------------------------------

    async def images(self, body: ImagesBody, seconds: float) -> Answer | Refusal:
        """Return the answer to a request for images, for which somebody waits ``seconds``."""
        return await self._queue.answer(ImagesTask(body, time.monotonic() + seconds, self.options.limits.pixels))

    def _run(self, tasks: Sequence[ImagesTask]) -> list[Answer | Refusal]:
        return run_batch(self._hosted, tasks, on_error=_log_error)

    async def upload(self, form: RequestBody, seconds: float) -> Answer | Refusal:
        """Return the answer to an image that was sent, for which somebody waits ``seconds``."""
        deadline_s, limits = time.monotonic() + seconds, self.options.limits
        executor = self._passes if needs_model(form) else self._others
        return await self._in(executor, lambda: answer_upload(self._hosted, form, limits, deadline_s, _log_error))

    async def facts(self) -> dict[str, Any]:
        """Return what is told of the model, and why a newer one is not in its place."""
        return self._hosted.facts() | {"follows": self.options.follow_s is not None, "fault": self._fault}

    async def _in(self, executor: ThreadPoolExecutor, run: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(executor, run)

    # -- newer versions ------------------------------------------------------------------------

    def _follow(self, every_s: float) -> None:
        """Look for newer versions; one that cannot be loaded leaves the old one where it is."""
        torch.set_num_threads(self.options.threads)
        wait_s, failures = every_s, 0
        while not self._ended.wait(wait_s):
            newest: ModelVersion | None = None
            try:
                newest = self.source.newest()
                if newest.key != self._hosted.version.key:
                    self._replace(load_model(newest, self._device))
                self._fault, failures = None, 0
            except Exception as error:  # whatever it is, the old one goes on
                self._note_fault(newest, error)
                failures += 1
            wait_s = min(every_s * 2 ** min(failures, 16), max(every_s, MOST_WAIT_S))

    def close(self) -> None:
        """Look for no newer version any more."""
        self._ended.set()

    def _replace(self, hosted: HostedModel) -> None:
        """Put ``hosted`` in place: batches that are being drawn keep the model that they have begun with."""
        log.warning("model %s answers in place of %s", hosted.name, self._hosted.name)
        self._hosted = hosted

    def _note_fault(self, version: ModelVersion | None, error: Exception) -> None:
        what = "a newer model" if version is None else version.key
        kind = "" if isinstance(error, FreqganError) else f"{type(error).__name__}: "
        reason = f"{kind}{first_line(error)}"
        fault = f"{what} cannot be loaded, and {self._hosted.version.key} goes on: {reason}"
        if fault != self._fault:
            log.warning(fault)
        self._fault = fault


def _log_error(error: BaseException) -> None:
    """Write where an unexpected error comes from into the log of the worker."""
    log.error("unexpected error of a pass", exc_info=error)
