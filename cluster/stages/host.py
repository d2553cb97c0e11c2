"""A stage on a machine: the pure step of ``freqgan/`` made idempotent, with its files.

The same object runs inside a Ray actor and in the inline executor. What stages give each other are tensors on their
device here; arrays, which cross the borders of processes, are the actors' business.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.run.layout import CHECKPOINTS, checkpoint_path, parse_rollback_file, rollback_path, state_file
from cluster.run.settings import RunSettings
from cluster.run.stage_files import pack_stage, read_counters, read_tensors, rollback_record
from cluster.run.teacher import open_teacher
from cluster.run.vgg_file import load_vgg19
from cluster.stages.devices import choose_device
from cluster.stages.lag_buffer import BandBuffer, BandStep, GradientBuffer, LagBuffer
from cluster.stages.process_group import ReplicaGroup
from cluster.stages.replicas import StageReplica
from cluster.stages.snapshots import read_snapshot, snapshot_path, write_snapshot
from cluster.storage.checksummed_files import FileRecord, read_verified, write_files
from cluster.storage.folder import open_folder
from freqgan.errors import InputError, RunError, first_line
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.chain import Chain
from freqgan.model.needs import feedback_receivers, stage_needs
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE
from freqgan.networks.vgg import Vgg19
from freqgan.runtime.data_parallel import SINGLE
from freqgan.runtime.graph_capture import CudaGraphs
from freqgan.tensor_dicts import Metrics, counters_of, tensors_of
from freqgan.training.companion_stage import CompanionStage, build_image_stage
from freqgan.training.experts import build_expert
from freqgan.training.fusion import FusionStage
from freqgan.training.image_stage import ImageStage
from freqgan.training.rollback import GOOD, DivergenceGuard
from freqgan.training.stage import BandExpert, Feedback

GRADIENT_SCALE = 1024.0
"""Of feedback in float16, whose numbers are else near the smallest that it has. A power of two: exact."""


class OutOfStepError(RunError):
    """A stage was asked for a step that is not its next one: calls before it were lost."""


class HostedStep(NamedTuple):
    """A step's metrics and what it has for other stages: a band's output, or the image stage's gradients by GAN.

    ``outputs`` are of the type that the settings exchange, in C order; there are none that no stage takes.
    """

    metrics: Metrics
    outputs: dict[str, Tensor]


class StageHost(ABC):
    """A stage or a replica of one, with the count of the steps it has done; see :class:`BandHost`, :class:`ImageHost`.

    Args:
        settings: of the run.
        replica: which replica of which stage.
        stage: as it is at the very start.
        lag_buffer: for the last steps of the stage.
        group: of its replicas, where there are several.

    """

    def __init__(
        self,
        settings: RunSettings,
        replica: StageReplica,
        stage: BandExpert | ImageStage | CompanionStage | FusionStage,
        lag_buffer: LagBuffer[Any],
        group: ReplicaGroup | None = None,
    ) -> None:
        self.settings, self.replica, self.name = settings, replica, replica.stage
        self.group, self.share = group, group or SINGLE
        self.stage, self.kept = stage, lag_buffer
        self.needs = stage_needs(settings)[replica.stage]
        self.guard = DivergenceGuard(stage, settings.health)
        self.done = 0
        self._last: HostedStep | None = None
        self._good_written = -1
        self._rollback_record: FileRecord | None = None
        self._ended_s: float | None = None

    def step(
        self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor], gradient: Tensor | None = None
    ) -> HostedStep:
        """Run step number ``step`` (from 0). A repeat of the last one returns its result; a gap is refused.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N) in C order, of the whole batch, not yet augmented.
            labels: int64 (B,), or packed targets (B, K).
            outputs: of the GANs whose outputs the stage takes, by name, as they are exchanged.
            gradient: the image stage's for this band, of ``feedback.lag`` steps ago.

        Returns:
            The outputs, and metrics that also have ``begun_s`` (seconds since 1970), ``seconds`` that the step took
            and ``waited_s`` since the step before.

        Raises:
            OutOfStepError: it is neither the next step nor the last one.

        """
        if step == self.done - 1 and self._last is not None:
            return self._last
        if step != self.done:
            raise OutOfStepError(
                f"{self.name} has done {self.done} steps and was asked for step {step}: steps come in order"
            )
        begun_s, start_s = time.time(), time.perf_counter()
        targets = self.stage.chain.normalised_targets(labels)
        result = self._train(step, images.to(self.device), targets, outputs, gradient)
        end_s = time.perf_counter()
        times = {"begun_s": begun_s, "seconds": end_s - start_s, "waited_s": start_s - (self._ended_s or start_s)}
        self._ended_s = end_s
        self._last = HostedStep(result.metrics | times, result.outputs)
        self.done += 1
        return self._last

    @abstractmethod
    def _train(
        self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor], gradient: Tensor | None
    ) -> HostedStep:
        """Train the stage on one batch, as :meth:`step` says."""

    def forward(self, step: int, labels: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the output of an earlier pass of a chain with cycles, by the weights before step ``step``.

        It is (B, C * bands, h, h) of this replica's rows; ``labels`` are (B,) of the whole batch.

        OutOfStepError where it is not the next step, or not a band that is asked.
        """
        raise OutOfStepError(f"{self.name} is no band and was asked to look ahead at step {step}")

    def gradients(self, step: int) -> dict[str, Tensor]:
        """Return the gradients of ``step``, one of the last ``feedback.lag``, by GAN.

        They are (B, C * bands, h, h) each. RunError of any but the image stage.
        """
        raise RunError(f"{self.name} was asked for gradients of step {step}: the image stage alone gives them")

    @property
    def device(self) -> torch.device:
        """The device that it trains on."""
        return self.stage.chain.device

    @property
    def _gradient_scale(self) -> float:
        return GRADIENT_SCALE if self.settings.exchange == "float16" else 1.0

    @property
    def _exchanged(self) -> torch.dtype:
        return torch.float16 if self.settings.exchange == "float16" else torch.float32

    def _with_real(self, step: int, images: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``outputs`` of other stages, and real bands in place of those that it takes and nobody sends.

        All are as they are exchanged.
        """
        real = self.stage.chain.real_outputs(step, images, self.needs.real)
        return dict(outputs) | {name: self._sent(band) for name, band in real.items()}

    def _received(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what other stages sent, on the device of this one, as numbers to compute with."""
        here = {name: tensor.to(self.device) for name, tensor in outputs.items()}
        return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in here.items()}

    def _sent(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` for other stages, in C order: a sum over another order of memory rounds otherwise.

        Convolutions leave channels last; the object store and checkpoints do not keep that.
        """
        return tensor.detach().contiguous().to(self._exchanged)

    def save(self, step: int, attempt: str) -> list[FileRecord]:
        """Write the state after ``step`` steps; return name, size and sha256 of each file."""
        return write_files(open_folder(self.settings.run).child(CHECKPOINTS).url, self.packed(step, attempt))

    def packed(self, step: int, attempt: str) -> dict[str, bytes | FileRecord]:
        """Return the files of the checkpoint of ``step`` that the process ``attempt`` writes.

        By names relative to the folder of checkpoints. A state to go back to that was packed before is its record. The
        first of several replicas has the files of all, the others none; and all have to be called.
        """
        tensors, scalars = self._state(step)
        tensors |= {key: torch.cat(self.share.gather(tensors[key])) for key in self.kept.keys_of(self.name)}
        if self.replica.index:
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
        data = save_safetensors(tensors_of(self.guard.state_dict()))
        self._rollback_record = FileRecord(name, len(data), hashlib.sha256(data).hexdigest())
        return {name: data}

    def snapshot(self, step: int) -> Path:
        """Write the state after ``step`` steps to a file on this machine; return its path.

        It outlives this process, not the machine, and costs neither network nor object store.
        """
        tensors, scalars = self._state(step)
        run, kept = self.settings.run, self._snapshots_kept
        if self.guard.good_step != self._good_written:  # it seldom changes, and is as large as the state itself
            good = tensors_of(self.guard.state_dict())
            write_snapshot(run, f"{self.replica.name}.{GOOD}", self.guard.good_step, good, {}, kept)
            self._good_written = self.guard.good_step
        return write_snapshot(run, self.replica.name, step, tensors, scalars, kept)

    def restore(self, path: Path) -> None:
        """The state that :meth:`snapshot` wrote; SnapshotLostError where the file is gone."""
        tensors, scalars = read_snapshot(path)
        good, _ = read_snapshot(snapshot_path(self.settings.run, f"{self.replica.name}.{GOOD}", scalars["good_step"]))
        self._load(tensors | good, scalars)

    def _state(self, step: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        if step != self.done:
            raise OutOfStepError(f"{self.name} has done {self.done} steps and was asked to save step {step}")
        state = self.stage.state_dict()
        tensors = tensors_of(state) | self.kept.tensors()
        counters = {"step": self.done, **counters_of(state), **counters_of(self.guard.state_dict())}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, counters

    @property
    def _snapshots_kept(self) -> int:
        """A stage may be a window ahead of the others when it dies, and begin again where they all were."""
        return -(-self.settings.window // self.settings.snapshot_every) + 2

    def _load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        step = scalars.pop("step")
        self._rollback_record = None  # what was packed before may have been lost on its way
        self.kept.load(tensors)
        self.stage.load_state_dict({**tensors, **scalars})
        self.guard.load_state_dict({**tensors, **scalars}, step)
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
        try:
            self._load(tensors, scalars)
            self._rollback_record = rollback_record(self.name, records)
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"{root_url}, step {step}: {state_file(self.name)} is not the state of this stage "
                f"({first_line(error)}): it was written by another version, which can go on with it; this one can "
                "only generate from it"
            ) from error


class BandHost(StageHost):
    """The expert of a band, or a replica of one.

    A replica's outputs, and those in its lag buffer, are of its own rows of the batch; a checkpoint has those of all.

    Args:
        settings: of the run.
        replica: which replica of which expert.
        chain: of the model, on the device to train on.
        group: of the replicas, where there are several.
        untaught: builds a student beside a teacher at its start, to see what its steps cost.

    """

    stage: BandExpert
    kept: BandBuffer

    def __init__(
        self,
        settings: RunSettings,
        replica: StageReplica,
        chain: Chain,
        group: ReplicaGroup | None = None,
        *,
        untaught: bool = False,
    ) -> None:
        gan = chain.plan.gan(replica.stage)
        taught = gan.kind == "student" and not untaught
        teacher = open_teacher(settings).averages(gan.name) if taught else None
        stage = build_expert(chain, gan, group or SINGLE, _capture(settings, chain), teacher)
        super().__init__(settings, replica, stage, BandBuffer(settings.feedback.lag, gan.name), group)

    def _train(
        self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor], gradient: Tensor | None
    ) -> HostedStep:
        outputs = self._with_real(step, images, outputs)
        inputs = self._received(outputs)
        feedback = None if gradient is None else self._feedback(step - self.settings.feedback.lag, gradient)
        result = self.guard.run(step, lambda: self.stage.step(step, images, labels, inputs, feedback))
        if result.output is None:
            return HostedStep(result.metrics, {})
        output = self._sent(result.output)
        if self.needs.feedback:
            self.kept.add(step, BandStep(labels, outputs, output))
        return HostedStep(result.metrics, {self.name: output})

    def forward(self, step: int, labels: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the output (B, C * bands, h, h) of an earlier pass, see :class:`StageHost`."""
        if step != self.done:
            raise OutOfStepError(f"{self.name} has done {self.done} steps and was asked to look ahead at step {step}")
        targets = self.stage.chain.normalised_targets(labels)
        return self._sent(self.stage.forward(step, targets, self._received(outputs)))

    def _feedback(self, step: int, gradient: Tensor) -> Feedback:
        """Return the image stage's gradient of ``step`` with what this GAN did at that step."""
        labels, inputs, output = self.kept.at(step)
        received = self._received({**inputs, self.name: output})
        unscaled = gradient.to(self.device).float() / self._gradient_scale
        return Feedback(step, labels, received, received.pop(self.name), unscaled)

    def load(self, root_url: str, records: list[FileRecord], step: int) -> None:
        """Take the state that :meth:`save` wrote; of the outputs of all replicas only its own rows."""
        super().load(root_url, records, step)
        self.kept.cut(self.share.rows(self.settings.batch))


class ImageHost(StageHost):
    """The image stage.

    Args:
        settings: of the run.
        chain: of the model, on the device to train on.

    """

    stage: ImageStage | CompanionStage
    kept: GradientBuffer

    def __init__(self, settings: RunSettings, chain: Chain) -> None:
        stage = build_image_stage(chain, _capture(settings, chain), _load_vgg)
        super().__init__(settings, StageReplica(IMAGE_STAGE, 0, 1), stage, GradientBuffer(settings.feedback.lag))
        self._receivers = feedback_receivers(settings)

    def _train(
        self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor], gradient: Tensor | None
    ) -> HostedStep:
        inputs = self._received(self._with_real(step, images, outputs))
        result = self.guard.run(step, lambda: self.stage.step(step, images, labels, inputs))
        # Its pictures have no reader: not sending them keeps them out of the object store.
        feedback = {name: result.feedback[name] for name in self._receivers}
        gradients = {name: self._sent(tensor * self._gradient_scale) for name, tensor in feedback.items()}
        if gradients:
            self.kept.add(step, gradients)
        return HostedStep(result.metrics, gradients)

    def gradients(self, step: int) -> dict[str, Tensor]:
        """Return the gradients (B, C * bands, h, h) of ``step`` by GAN."""
        return {name: tensor.to(self._exchanged) for name, tensor in self.kept.at(step).items()}


class FusionHost(StageHost):
    """The jointly trained system, or a replica of it; it keeps nothing of a step but its state.

    Args:
        settings: of the run.
        replica: which replica.
        chain: of the model, on the device to train on.
        group: of the replicas, where there are several.

    """

    stage: FusionStage

    def __init__(
        self, settings: RunSettings, replica: StageReplica, chain: Chain, group: ReplicaGroup | None = None
    ) -> None:
        stage = FusionStage(chain, group or SINGLE, _capture(settings, chain))
        super().__init__(settings, replica, stage, GradientBuffer(settings.feedback.lag), group)

    def _train(
        self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor], gradient: Tensor | None
    ) -> HostedStep:
        result = self.guard.run(step, lambda: self.stage.step(step, images, labels, outputs))
        return HostedStep(result.metrics, {})


def _load_vgg(url: str) -> Vgg19:
    try:
        return load_vgg19(url, lambda _: None)
    except InputError as error:
        raise InputError(f"image_stage.feature_matching.network: {error}") from error


def build_chain(settings: RunSettings, statistics: Mapping[str, NDArray[np.float32]]) -> Chain:
    """Return the chain of ``settings`` on the device that they choose.

    ``statistics`` are means and deviations (C,) of the bands by name.
    """
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in statistics.items()}
    return Chain(settings, BandStatistics.from_tensors(tensors), choose_device(settings.device))


def build_host(settings: RunSettings, replica: StageReplica, chain: Chain, *, untaught: bool = False) -> StageHost:
    """Return the host of ``replica``, as it is at the very start.

    Stages of one process should share ``chain``: then they share the work on a batch. ``untaught`` reads no teacher of
    students, see :class:`BandHost`.

    Raises:
        InputError: the folder of a run of students holds no teacher, or a damaged one.

    """
    torch.set_num_threads(settings.threads)
    if replica.stage == IMAGE_STAGE:
        return ImageHost(settings, chain)
    if replica.stage == FUSION_STAGE:
        return FusionHost(settings, replica, chain)
    group = None
    if replica.count > 1:
        group = ReplicaGroup(replica.index, replica.count, chain.device, settings.replica_timeout_s)
    return BandHost(settings, replica, chain, group, untaught=untaught)


def _capture(settings: RunSettings, chain: Chain) -> CudaGraphs | None:
    return cuda_graphs() if settings.cuda_graphs and chain.device.type == "cuda" else None


@cache
def cuda_graphs() -> CudaGraphs:
    """Return the graphs that all stages of this process capture."""
    return CudaGraphs()


def tensor_of(array: NDArray[np.generic]) -> Tensor:
    """Return a copy of ``array`` (...), in C order.

    Arrays from the object store are read-only; torch has no read-only tensors, and an in-place write would corrupt the
    stored object. Images come with their channels last: the arithmetic of a step depends on the order of memory.
    """
    return torch.from_numpy(np.array(array, order="C"))
