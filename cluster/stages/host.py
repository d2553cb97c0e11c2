"""A stage on a machine: the pure step of ``freqgan/`` made idempotent, with its files.

The same object runs inside a Ray actor and in the inline executor. What stages give each other are tensors on their
device here; arrays, which cross the borders of processes, are the actors' business.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.run.layout import CHECKPOINTS, checkpoint_path, parse_rollback_file, rollback_path, state_file
from cluster.run.settings import RunSettings
from cluster.run.stage_files import pack_stage, read_counters, read_tensors, rollback_record
from cluster.stages.lag_buffer import LagBuffer
from cluster.stages.process_group import ReplicaGroup
from cluster.stages.replicas import StageReplica
from cluster.stages.snapshots import read_snapshot, snapshot_path, write_snapshot
from cluster.storage.checksummed_files import FileRecord, read_verified, write_files
from cluster.storage.folder import open_folder
from freqgan.errors import InputError, RunError
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.runtime.data_parallel import SINGLE
from freqgan.runtime.graph_capture import CudaGraphs
from freqgan.tensor_dicts import Metrics
from freqgan.training.band_gan import BandGan, Feedback
from freqgan.training.image_stage import ImageStage
from freqgan.training.rollback import GOOD, DivergenceGuard

GRADIENT_SCALE = 1024.0
"""Of feedback in float16, whose numbers are else near the smallest that it has. A power of two: exact."""
LABELS = "labels"


class OutOfStepError(RunError):
    """A stage was asked for a step that is not its next one: calls before it were lost."""


class HostedStep(NamedTuple):
    """A step's metrics and what it has for other stages: a band's output, or the image stage's gradients by GAN.

    ``outputs`` are of the type that the settings exchange, in C order.
    """

    metrics: Metrics
    outputs: dict[str, Tensor]


class StageHost:
    """One band GAN or a replica of one, or the image stage, with the count of the steps it has done.

    A replica's outputs, and those that it keeps, are of its own rows of the batch; a checkpoint has those of all.

    Args:
        settings: of the run.
        name: of the GAN, or "image".
        statistics: of the bands, as numpy arrays by name (what crosses process borders).
        member: which replica of the stage; the only one where not given.

    """

    def __init__(
        self,
        settings: RunSettings,
        name: str,
        statistics: Mapping[str, NDArray[np.float32]],
        member: StageReplica | None = None,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self.settings, self.name = settings, name
        self.member = member or StageReplica(name, 0, 1)
        self.device = choose_device(settings.device)
        self.group: ReplicaGroup | None = None
        if self.member.count > 1:
            self.group = ReplicaGroup(self.member.index, self.member.count, self.device, settings.replica_timeout_s)
        self.share = self.group or SINGLE
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in statistics.items()}
        capture = cuda_graphs() if settings.cuda_graphs and self.device.type == "cuda" else None
        chain = Chain(settings, BandStatistics.from_tensors(tensors), self.device)
        self.stage: BandGan | ImageStage
        if name == IMAGE_STAGE:
            self.stage = ImageStage(chain, capture)
        else:
            self.stage = BandGan(chain, chain.plan.gan(name), self.share, capture)
        self.guard = DivergenceGuard(self.stage, settings.health)
        self.done = 0
        self.kept = LagBuffer(settings.feedback.lag)
        self._last: HostedStep | None = None
        self._good_written = -1
        self._rollback_record: FileRecord | None = None
        self._ended_s: float | None = None

    def step(
        self,
        step: int,
        images: Pixels,
        labels: NDArray[np.int64],
        outputs: Mapping[str, Tensor],
        gradient: Tensor | None = None,
    ) -> HostedStep:
        """Step number ``step`` (from 0). A repeat of the last one returns its result; a gap is refused.

        Metrics also have ``begun_s`` (seconds since 1970), ``seconds`` it took and ``waited_s`` since the step before.
        ``gradient`` is the image stage's for this band, of ``feedback.lag`` steps ago.
        """
        if step == self.done - 1 and self._last is not None:
            return self._last
        if step != self.done:
            raise OutOfStepError(
                f"{self.name} has done {self.done} steps and was asked for step {step}: steps come in order"
            )
        begun_s, start_s = time.time(), time.perf_counter()
        metrics, made = self._step(step, images, labels, outputs, gradient)
        end_s = time.perf_counter()
        times = {"begun_s": begun_s, "seconds": end_s - start_s, "waited_s": start_s - (self._ended_s or start_s)}
        self._ended_s = end_s
        self._last = HostedStep(metrics | times, made)
        self.done += 1
        return self._last

    def _step(
        self,
        step: int,
        images: Pixels,
        labels: NDArray[np.int64],
        outputs: Mapping[str, Tensor],
        gradient: Tensor | None,
    ) -> tuple[Metrics, dict[str, Tensor]]:
        batch = tensor_of(images).to(self.device), tensor_of(labels)
        if isinstance(self.stage, ImageStage):
            stage = self.stage
            judged = self.guard.run(step, lambda: stage.step(step, *batch, self._inputs(outputs)))
            # Its pictures have no reader: not sending them keeps them out of the object store.
            made = {name: self._sent(tensor * self._gradient_scale) for name, tensor in judged.feedback.items()}
            if made:
                self.kept.add(step, dict(made))
            return judged.metrics, made
        feedback = None
        if gradient is not None:
            before = step - self.settings.feedback.lag
            inputs = self._inputs(self.kept.at(before))
            feedback = Feedback(before, inputs.pop(LABELS), inputs, inputs.pop(self.name), self._gradient(gradient))
        band = self.stage
        trained = self.guard.run(step, lambda: band.step(step, *batch, self._inputs(outputs), feedback))
        made = {self.name: self._sent(trained.output)}
        if self.settings.feeds_back:
            self.kept.add(step, {**outputs, **made, LABELS: batch[1]})
        return trained.metrics, made

    def gradients(self, step: int) -> dict[str, Tensor]:
        """What the image stage told every band at ``step``, one of the last ``feedback.lag``."""
        return {name: tensor.to(self._exchanged) for name, tensor in self.kept.at(step).items()}

    def forward(self, step: int, labels: NDArray[np.int64], outputs: Mapping[str, Tensor]) -> Tensor:
        """The output of an earlier pass of a chain with cycles, at step ``step``, by the weights before that step."""
        if step != self.done or not isinstance(self.stage, BandGan):
            raise OutOfStepError(f"{self.name} has done {self.done} steps and was asked to look ahead at step {step}")
        return self._sent(self.stage.forward(step, tensor_of(labels), self._inputs(outputs)))

    @property
    def _gradient_scale(self) -> float:
        return GRADIENT_SCALE if self.settings.exchange == "float16" else 1.0

    @property
    def _exchanged(self) -> torch.dtype:
        return torch.float16 if self.settings.exchange == "float16" else torch.float32

    def _gradient(self, sent: Tensor) -> Tensor:
        return sent.to(self.device).float() / self._gradient_scale

    def _inputs(self, sent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What other stages made, on the device of this one, as numbers to compute with."""
        here = {name: tensor.to(self.device) for name, tensor in sent.items()}
        return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in here.items()}

    def _sent(self, tensor: Tensor) -> Tensor:
        """``tensor`` for other stages, in C order: a sum over another order of memory rounds otherwise.

        Convolutions leave channels last; the object store and checkpoints do not keep that.
        """
        return tensor.detach().contiguous().to(self._exchanged)

    def save(self, step: int, attempt: str) -> list[FileRecord]:
        """Writes the state after ``step`` steps; returns name, size and sha256 of each file."""
        return write_files(open_folder(self.settings.run).child(CHECKPOINTS).url, self.packed(step, attempt))

    def packed(self, step: int, attempt: str) -> dict[str, bytes | FileRecord]:
        """The files of the checkpoint of ``step`` that the process ``attempt`` writes.

        By names relative to the folder of checkpoints. A state to go back to that was packed before is its record. The
        first of several replicas has the files of all, the others none; and all have to be called.
        """
        tensors, scalars = self._state(step)
        tensors |= {key: torch.cat(self.share.gather(tensors[key])) for key in self.kept.keys_of(self.name)}
        if self.member.index:
            return {}
        files: dict[str, bytes | FileRecord] = {}
        for name, data in pack_stage(self.name, tensors, scalars).items():
            files[checkpoint_path(step, attempt, name)] = data
        return files | self._packed_rollback_state(attempt)

    def _packed_rollback_state(self, attempt: str) -> dict[str, bytes | FileRecord]:
        written = self._rollback_record
        if written is not None and parse_rollback_file(written.name) == (self.name, self.guard.good_step):
            return {written.name: written}
        name = rollback_path(self.name, self.guard.good_step, attempt)
        data = save_safetensors(self.guard.tensors())
        self._rollback_record = FileRecord(name, len(data), hashlib.sha256(data).hexdigest())
        return {name: data}

    def snapshot(self, step: int) -> Path:
        """Writes the state after ``step`` steps to a file on this machine; returns its path.

        It outlives this process, not the machine, and costs neither network nor object store.
        """
        tensors, scalars = self._state(step)
        run, kept = self.settings.run, self._snapshots_kept
        if self.guard.good_step != self._good_written:  # it seldom changes, and is as large as the state itself
            write_snapshot(run, f"{self.member.name}.{GOOD}", self.guard.good_step, self.guard.tensors(), {}, kept)
            self._good_written = self.guard.good_step
        return write_snapshot(run, self.member.name, step, tensors, scalars, kept)

    def restore(self, path: Path) -> None:
        """The state that :meth:`snapshot` wrote; SnapshotLostError where the file is gone."""
        tensors, scalars = read_snapshot(path)
        good, _ = read_snapshot(snapshot_path(self.settings.run, f"{self.member.name}.{GOOD}", scalars["good_step"]))
        self._load(tensors | good, scalars)

    def _state(self, step: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        if step != self.done:
            raise OutOfStepError(f"{self.name} has done {self.done} steps and was asked to save step {step}")
        state = self.stage.tensors() | self.kept.tensors()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        return tensors, {"step": self.done, **self.stage.scalars(), **self.guard.scalars()}

    @property
    def _snapshots_kept(self) -> int:
        """A stage may be a window ahead of the others when it dies, and begin again where they all were."""
        return -(-self.settings.window // self.settings.snapshot_every) + 2

    def _load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        step = scalars.pop("step")
        self.kept.load(tensors)
        self.stage.load(tensors, scalars)
        self.guard.load(tensors, scalars, step)
        self.done, self._last = step, None

    def load(self, root_url: str, records: list[FileRecord], step: int) -> None:
        """The state that :meth:`save` wrote, from the folder of checkpoints.

        Raises:
            DamagedFileError: a file is not the one that was recorded.
            RunError: it is not the state of this stage.

        """
        read = partial(read_verified, open_folder(root_url))
        scalars = json.loads(read_counters(self.name, records, read))
        tensors = read_tensors(self.name, records, read)
        if scalars["step"] != step:
            raise RunError(f"{root_url}: {self.name} is at step {scalars['step']}, not at {step}: files are mixed up")
        self._rollback_record = rollback_record(self.name, records)
        try:
            self._load(tensors, scalars)
            self.kept.cut(self.name, self.share.rows(self.settings.batch))
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"{root_url}, step {step}: {state_file(self.name)} is not the state of this stage "
                f"({_first_line(error)}): it was written by another version, which can go on with it; this one can "
                "only generate from it"
            ) from error


@cache
def cuda_graphs() -> CudaGraphs:
    """The graphs that all stages of this process capture."""
    return CudaGraphs()


def choose_device(wanted: str) -> torch.device:
    """The device for ``wanted`` of auto, cpu, cuda; InputError when cuda is wanted and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for and this process sees no GPU; set device=auto or device=cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def emulates_precision(settings: RunSettings) -> bool:
    """Whether this machine has no instructions for ``precision`` and would be several times slower for it."""
    if settings.precision != "bfloat16" or choose_device(settings.device).type != "cpu":
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def tensor_of(array: NDArray[np.generic]) -> Tensor:
    """A copy of ``array``, in C order.

    Arrays from the object store are read-only; torch has no read-only tensors, and an in-place write would corrupt the
    stored object. Images come with their channels last: the arithmetic of a step depends on the order of memory.
    """
    return torch.from_numpy(np.array(array, order="C"))
