"""The Ray actors: thin shells around the same objects that the inline executor calls.

Actors never put objects and never call each other: what an actor *returns* is owned by the coordinator
and survives the actor, what it puts dies with it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freqgan.runtime.imports import uncollected

with uncollected():  # most of what a new actor waits for
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from cluster.data.decoding import Pixels
    from cluster.data.reader import Targets
    from cluster.evaluation.background import ScoreValues, score_checkpoint
    from cluster.ray_engine.metrics import StageTelemetry
    from cluster.run.settings import RunSettings
    from cluster.stages.host import StageHost, build_chain, build_host, tensor_of
    from cluster.stages.malloc import keep_freed_pages
    from cluster.stages.process_group import Meeting, ReplicaGroup
    from cluster.stages.replicas import StageReplica
    from cluster.stages.snapshots import delete_snapshots
    from cluster.storage.checksummed_files import FileRecord
    from freqgan.errors import RunError
    from freqgan.model.needs import feedback_receivers

Array = NDArray[np.float32] | NDArray[np.float16]
"""What stages give each other."""


def _returned(values: list[Any]) -> Any:
    """Return ``values`` as Ray takes so many results: one by itself, more in a list."""
    return values[0] if len(values) == 1 else values


def _joined(names: Sequence[str], outputs: Sequence[Array]) -> dict[str, Tensor]:
    """Outputs by name, the parts of one name put together in their order."""
    parts: dict[str, list[Tensor]] = {}
    for name, output in zip(names, outputs, strict=True):
        parts.setdefault(name, []).append(tensor_of(output))
    return {name: part[0] if len(part) == 1 else torch.cat(part) for name, part in parts.items()}


def _array(tensor: Tensor) -> Array:
    out: Array = tensor.cpu().numpy()
    return out


@contextmanager
def _stacks_after(deadline_s: float) -> Iterator[None]:
    """Write to Ray's log where all threads are, if this takes longer: then the coordinator ends this process.

    By a timer of the kernel: the thread of ``faulthandler.dump_traceback_later`` has to be waited for at every step,
    behind whoever else wants the cores.
    """
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class StageActor:
    """The expert of a band, or the image stage. Outputs of other stages arrive as top-level arguments, resolved by Ray.

    It is no stage before :meth:`build`, so that a spare can wait with everything imported.
    """

    def __init__(self) -> None:
        self._host: StageHost | None = None
        self._telemetry: StageTelemetry | None = None
        keep_freed_pages()
        faulthandler.register(signal.SIGALRM, file=sys.stderr)  # without, the signal would end the process

    def build(self, settings: dict[str, Any], replica: StageReplica, statistics: dict[str, NDArray[np.float32]]) -> str:
        """Make it a replica of a stage; answer once the networks are built.

        ``statistics`` are of the bands by name, (C,) each.
        """
        own = RunSettings.model_validate(settings)
        self._host = build_host(own, replica, build_chain(own, statistics))
        self._telemetry = StageTelemetry(own.run, replica.name)
        return replica.name

    @property
    def group(self) -> ReplicaGroup:
        """The group that it is part of."""
        if self.host.group is None:
            raise RunError(f"{self.host.name} has no other replicas")
        return self.host.group

    def open_store(self, address: str, generation: int) -> Meeting:
        """Open a store for its group at ``address``, this machine's, as :meth:`ReplicaGroup.open_store` does."""
        return self.group.open_store(address, generation)

    def join(self, meeting: Meeting) -> None:
        """Join its group, as :meth:`ReplicaGroup.join` does."""
        self.group.join(meeting)

    def has_lost_others(self) -> bool:
        """Return whether its group is broken."""
        return self._host is not None and self._host.group is not None and not self.group.is_whole

    @property
    def host(self) -> StageHost:
        """The stage that it is."""
        if self._host is None:
            raise RunError("this actor was not told which stage it is")
        return self._host

    def step(
        self,
        step: int,
        names: list[str],
        pixels: Pixels,
        targets: Targets,
        gradient: Array | None,
        *outputs: Array,
    ) -> Any:
        """Run :meth:`StageHost.step`; ``names`` says whose outputs follow, those of several replicas as parts.

        ``pixels`` (B, N, N, C) are those of the images. Metrics come first, then outputs.
        """
        with _stacks_after(self.host.settings.step_deadline_s):
            images = tensor_of(pixels.transpose(0, 3, 1, 2))
            given = None if gradient is None else tensor_of(gradient)
            result = self.host.step(step, images, tensor_of(targets), _joined(names, outputs), given)
            results = [_array(tensor) for tensor in result.outputs.values()]
        if self._telemetry is not None:
            self._telemetry.stepped(step, result.metrics, pixels, [gradient, *outputs, *results])
        return _returned([result.metrics, *results])

    def gradients(self, step: int) -> Any:
        """Return what :meth:`StageHost.gradients` gives, in the order of the chain."""
        kept = self.host.gradients(step)
        return _returned([_array(kept[name]) for name in feedback_receivers(self.host.settings)])

    def forward(self, step: int, names: list[str], targets: Targets, *outputs: Array) -> Array:
        """Return the output (B, C * bands, h, h) that :meth:`StageHost.forward` gives.

        ``outputs`` are those of the stages ``names``, of any replica of one rows that are its own.
        """
        return _array(self.host.forward(step, tensor_of(targets), _joined(names, outputs)))

    def pack(self, step: int, attempt: str) -> dict[str, NDArray[np.uint8] | FileRecord]:
        """Return the files that :meth:`StageHost.packed` gives.

        Their bytes are arrays (...), which the object store hands on without a copy.
        """
        files = self.host.packed(step, attempt)
        return {n: x if isinstance(x, FileRecord) else np.frombuffer(x, np.uint8) for n, x in files.items()}

    def load(self, root_url: str, records: list[FileRecord], step: int) -> None:
        """Load a checkpoint, as :meth:`StageHost.load` does."""
        self.host.load(root_url, records, step)

    def pid(self) -> int:
        """Return the number of its process."""
        return os.getpid()

    def done(self) -> int:
        """Return how many steps it has done, once it has gone through all calls before this one."""
        return 0 if self._host is None else self._host.done

    def snapshot(self, step: int) -> Path:
        """Write a snapshot, as :meth:`StageHost.snapshot` does."""
        return self.host.snapshot(step)

    def restore(self, path: Path) -> None:
        """Take the state of a snapshot, as :meth:`StageHost.restore` does."""
        self.host.restore(path)

    def delete_snapshots(self) -> None:
        """Delete the snapshots of all stages of the run on this machine."""
        delete_snapshots(self.host.settings.run)


class EvaluationActor:
    """Scores checkpoints beside the training; it reads them from storage, so nothing waits for it."""

    def score(self, run: str, step: int, data: str, count: int) -> ScoreValues:
        """Score the checkpoint of ``step`` as :func:`score_checkpoint` does."""
        return score_checkpoint(run, step, data, count)
