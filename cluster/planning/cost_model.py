"""The cost of every stage: measured on the hardware at hand, estimated for any other.

A measurement takes seconds to minutes and is kept in the user's cache, by everything it depends on. For types of
accelerators that are not at hand, costs come from the work that is counted on the networks themselves and from data
sheets; these are estimates, and are called so wherever they are shown.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cluster.planning.contention import contention_factor, prepare
from cluster.planning.devices import ACCELERATORS, CPU, Device, accelerator_of
from cluster.planning.profiler import profile_rounds, step_seconds
from cluster.planning.stage_cost import StageCost
from cluster.run.settings import RunSettings
from cluster.stages.devices import choose_device
from cluster.storage.user_cache import user_cache
from freqgan.costing.operator_count import StepWork, step_work
from freqgan.errors import FreqganError, counted
from freqgan.model.stage_names import stage_names

COSTS = "costs"
"""Name of the folder of measurements in the user's cache."""
LAUNCH_S = 6e-6
"""Seconds of one operator from Python, which small networks wait for on a large GPU: a guess until measured."""
EFFICIENCY = 0.25
"""Share of a data sheet's speed that convolutions of tens of channels reach: a guess until measured."""
LEAST_SLOPE = 0.1
"""At least this share of a step grows with the batch, whatever noise there is in the measurement."""
UNUSABLE = (FreqganError, ValueError, TypeError, AttributeError)
"""What a cached file that is absent, damaged or of another version raises: its contents are then made anew."""
GPU_ROUNDS = 4
"""Of so many steps each; the first ones on a GPU wait for kernels to be chosen, or recorded."""


@dataclass(frozen=True)
class Measured:
    """Costs of all stages on one accelerator.

    Attributes:
        accelerator: its type.
        hardware: its name as a person reads it.
        stages: their costs.
        contention: how many times more of a core a step takes in a pipeline that keeps all cores busy than alone.

    """

    accelerator: str
    hardware: str
    stages: tuple[StageCost, ...]
    contention: float = 1.0


@dataclass(frozen=True)
class StageCosts:
    """What stages cost on a device of speed 1, the devices with their speeds, and where the numbers come from.

    ``contention``: how many times more of a core they take in a pipeline that keeps all cores of its node busy.
    """

    stages: tuple[StageCost, ...]
    devices: list[Device]
    source: str
    contention: float = 1.0

    @property
    def by_name(self) -> dict[str, StageCost]:
        """The costs by the name of the stage, in the order of the chain."""
        return {stage.name: stage for stage in self.stages}


def stage_costs(
    settings: RunSettings,
    work: Mapping[str, StepWork],
    devices: Sequence[Device],
    *,
    measured: bool,
    note: Callable[[str], None],
) -> StageCosts:
    """Return costs of the stages on ``devices``, measured if that is wanted and their type at hand, else estimated."""
    kinds = list(dict.fromkeys(device.accelerator for device in devices))
    estimates = {kind: estimated(settings, work, kind) for kind in kinds}
    at_hand = CPU if settings.device == "cpu" or not torch.cuda.is_available() else None
    if measured and (at_hand is None or at_hand in kinds):
        own = measure(settings, work, note)
        if own.accelerator in kinds:
            source = f"measured on {own.hardware}"
            if len(kinds) > 1:
                source += "; other types estimated from data sheets beside it"
            speeds = with_speeds(devices, estimates[own.accelerator], estimates, settings.batch)
            return StageCosts(own.stages, speeds, source, own.contention)
    reference = min(kinds, key=lambda kind: sum(stage.seconds(settings.batch) for stage in estimates[kind]))
    source = "estimated from counted work and data sheets: within a factor of two or three, better between stages"
    speeds = with_speeds(devices, estimates[reference], estimates, settings.batch)
    return StageCosts(estimates[reference], speeds, source)


def counted_work(settings: RunSettings, note: Callable[[str], None] = lambda text: None) -> dict[str, StepWork]:
    """Return what :func:`step_work` counts of the stages that ``settings`` train.

    It is taken from the cache where it is known; ``note`` hears of it where it is not.
    """
    name, trained = f"work-{_key(settings)}.json", stage_names(settings)
    with suppress(*UNUSABLE):
        known = {stage: StepWork(**values) for stage, values in json.loads(user_cache(COSTS).read(name)).items()}
        if known.keys() >= set(trained):
            return {stage: known[stage] for stage in trained}
    note(f"counts the work of {counted(len(trained), 'stage')}, once for these settings: of large ones in minutes")
    work = step_work(settings)
    _store(name, {stage: asdict(w) for stage, w in work.items()})
    return {stage: work[stage] for stage in trained}


def estimated(settings: RunSettings, work: Mapping[str, StepWork], accelerator: str) -> tuple[StageCost, ...]:
    """Return the costs on one device of type ``accelerator``, from counted work and its data sheet."""
    kind = ACCELERATORS[accelerator]
    speed = kind.bfloat16 if settings.precision == "bfloat16" else kind.float32
    per_multiply_add_s = 2 / (speed * 1e12 * (EFFICIENCY if accelerator != CPU else 1.0))
    return tuple(
        StageCost(
            name, w.launches * LAUNCH_S, w.multiply_accumulates * per_multiply_add_s, w.fixed_bytes, w.image_bytes
        )
        for name, w in work.items()
    )


def measure(
    settings: RunSettings, work: Mapping[str, StepWork], note: Callable[[str], None] = lambda text: None
) -> Measured:
    """Return the costs on this machine's GPU, or on a core of it; from the cache where they are known.

    ``note`` hears what is being measured. Every part is cached once it is done: after an interruption the rest is left.
    """
    hardware, accelerator = _own_hardware(settings)
    half = max(1, settings.batch // 2)
    known: dict[str, Any] = {}
    parts: dict[str, tuple[str, Callable[[], Any]]] = {
        "few": (f"steps of {half} images", lambda: _seconds(settings, half)),
        "many": (f"steps of {settings.batch} images", lambda: _seconds(settings, settings.batch)),
    }
    if _has_contention(settings):
        parts["crowding"] = ("steps while all cores are busy", lambda: _contention(settings, known["many"]))
    name = f"seconds-{_key(settings, hardware)}.json"
    known |= _known(name, list(work))
    for number, (part, (what, seconds)) in enumerate(parts.items(), 1):
        if part not in known:
            note(f"measures {what} ({number} of {len(parts)})")
            known[part] = seconds()
            _store(name, known)
    few, many = known["few"], known["many"]
    stages = []
    for stage, w in work.items():
        slope_s = (many[stage] - few[stage]) / max(1, settings.batch - half)
        image_s = min(max(slope_s, LEAST_SLOPE * many[stage] / settings.batch), many[stage] / settings.batch)
        stages.append(StageCost(stage, many[stage] - image_s * settings.batch, image_s, w.fixed_bytes, w.image_bytes))
    return Measured(accelerator, hardware, tuple(stages), known.get("crowding", 1.0))


def prepare_measurement(settings: RunSettings) -> None:
    """Begin to load what :func:`measure` needs besides this process, where the cache does not spare it."""
    if _has_contention(settings):
        name = f"seconds-{_key(settings, _own_hardware(settings)[0])}.json"
        if "crowding" not in _known(name, stage_names(settings)):
            prepare()


def _own_hardware(settings: RunSettings) -> tuple[str, str]:
    """Return the name of this machine's GPU, or of a core of it, and the type of accelerator that it is."""
    device = choose_device(settings.device)
    if device.type != "cuda":
        return f"a core of {_processor()}", CPU
    name = torch.cuda.get_device_name(device)
    return name, accelerator_of(name)


def _has_contention(settings: RunSettings) -> bool:
    """Return whether stages would share this machine's cores, one thread each."""
    return choose_device(settings.device).type == "cpu" and settings.threads == 1


def _known(name: str, stages: list[str]) -> dict[str, Any]:
    """Return the parts of a measurement that the cache has, whole ones only."""
    known: dict[str, Any] = {}
    with suppress(*UNUSABLE):
        for part, value in json.loads(user_cache(COSTS).read(name)).items():
            if part == "crowding":
                known[part] = float(value)
            elif part in ("few", "many") and list(value) == stages:
                known[part] = {stage: float(seconds) for stage, seconds in value.items()}
    return known


def with_speeds(devices: Sequence[Device], reference: Sequence[StageCost], others: Mapping[str, Sequence[StageCost]],
                batch: int) -> list[Device]:  # fmt: skip
    """Return ``devices`` with speeds relative to the one that ``reference`` costs are of; ``others`` by accelerator."""
    whole = sum(stage.seconds(batch) for stage in reference)
    speeds = {name: whole / sum(stage.seconds(batch) for stage in stages) for name, stages in others.items()}
    return [replace(device, speed=speeds[device.accelerator]) for device in devices]


def _contention(settings: RunSettings, alone_s: Mapping[str, float]) -> float:
    """Return :func:`contention_factor` beside ``alone_s``, the seconds of a step by stage that were measured alone."""
    return contention_factor(settings, sum(alone_s.values()), lambda: sum(_seconds(settings, settings.batch).values()))


def _seconds(settings: RunSettings, batch: int) -> dict[str, float]:
    """Return the seconds of a step with ``batch`` images by stage, as a mean over a run.

    Few steps are timed: a plan is to be had in seconds.
    """
    profiled = profile_rounds(settings, batch)
    rounds = 1 if choose_device(settings.device).type == "cpu" else GPU_ROUNDS
    for _ in range(rounds - 1):  # they warm up
        next(profiled)
    return step_seconds(settings, list(itertools.islice(profiled, rounds)))


def _key(settings: RunSettings, hardware: str = "") -> str:
    """Return a digest of all that the work of a step, or the time for it on ``hardware``, depends on."""
    model = settings.identity()
    for name in ("seed", "statistics_images", "ingest"):
        model.pop(name, None)
    if settings.only:
        model["only"] = list(settings.only)
    text = json.dumps([model, hardware, torch.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _store(name: str, values: object) -> None:
    """Write to the cache, where there is one: a container may have no home that can be written."""
    with suppress(FreqganError):
        user_cache(COSTS).write(name, json.dumps(values).encode())


def _processor() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
