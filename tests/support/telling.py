"""A training that tells what happens, one JSON object a line: ``python -m tests.support.telling SETTINGS``.

``at_s`` is of the machine's monotonic clock, so that another process can tell how long after something it was.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import pytest

from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.run.settings import RunSettings
from freqgan.errors import FreqganError
from tests.support.runs import Events, trained_with


def tell(kind: str, **values: Any) -> None:
    """One line."""
    print(json.dumps({"kind": kind, "at_s": time.monotonic()} | values), flush=True)


class Telling(Events):
    """A reporter that tells, and takes ``pause_s`` over every step so that a short run lasts."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s

    def on_start(self, first_step: int, notes: list[str]) -> None:
        tell("started", step=first_step)

    def on_step(self, record: StepRecord) -> None:
        tell("stepped", step=record.step)
        time.sleep(self.pause_s)

    def on_recovery(self, recovery: Recovery) -> None:
        tell("recovered", **asdict(recovery))

    def on_note(self, text: str) -> None:
        tell("noted", text=text)


def tell_of_executor(patch: pytest.MonkeyPatch) -> None:
    """Tells where actors are once they are up, of every error that the executor sees, and when it has ended."""
    import ray

    from cluster.ray_engine.executor import RayExecutor

    start, recover, close = RayExecutor._start, RayExecutor._recover, RayExecutor.close

    def node_of(_actor: Any) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def start_and_tell(self: RayExecutor) -> None:
        start(self)
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        actors = {**self.workers.actors, **self.workers.readers}
        nodes = ray.get([actor.__ray_call__.remote(node_of) for actor in actors.values()], timeout=60)
        tell("placed", hosts={name: addresses[node] for name, node in zip(actors, nodes, strict=True)})

    def tell_and_recover(self: RayExecutor, error: Any) -> None:
        cause = getattr(error, "cause", None)
        tell("failure", error=type(error).__name__, cause=type(cause).__name__, text=str(error)[-400:])
        recover(self, error)
        tell("submitted again", seats={name: seat.address for name, seat in self.workers.allocation.by_actor.items()})

    def close_and_tell(self: RayExecutor) -> None:
        tell("closing")
        close(self)
        tell("closed")

    for name, method in (("_start", start_and_tell), ("_recover", tell_and_recover), ("close", close_and_tell)):
        patch.setattr(RayExecutor, name, method)


def main(settings: RunSettings, pause_s: float) -> int:
    """The exit code."""
    with pytest.MonkeyPatch.context() as patch:
        if settings.executor == "ray":
            tell_of_executor(patch)
        try:
            tell("ended", digest=trained_with(settings, Telling(pause_s)))
        except FreqganError as error:
            tell("ended", error=f"{type(error).__name__}: {error}", digest=None)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(RunSettings.model_validate_json(sys.argv[1]), float(sys.argv[2])))
