"""A model in a folder that stands alone: averaged weights, band statistics and what they mean.

``config.json`` says what ``model.safetensors`` holds, with its size and sha256. Nothing else is needed, and nothing in
it names the machines or the places of a training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from freqgan.errors import InputError
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.settings import ModelSettings
from freqgan.setting_group import AS_STORED, invalid_values
from freqgan.tensor_dicts import add_prefix, strip_prefix
from freqgan.version import VERSION

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
STATISTICS, STAGES = "statistics", "stages"


class WeightsRecord(BaseModel):
    """The file of weights as ``config.json`` has it."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    sha256: str


class TrainingRecord(BaseModel):
    """What a model was trained on.

    Attributes:
        images: that it has seen, repetitions among them.
        steps: that each stage has finished, by its name.
        data: sha256 over the shards' contents; "" where it is not known.
        classes: the names of labels 0, 1 ...; () where they are not known.
        values: what stored numbers mean: offset, slope, unit, spacing in mm, modality; {} where it is not known.

    """

    model_config = ConfigDict(frozen=True)

    images: int
    steps: dict[str, int]
    data: str = ""
    classes: tuple[str, ...] = ()
    values: dict[str, Any] = {}


class ModelConfig(BaseModel):
    """The contents of ``config.json``."""

    model_config = ConfigDict(frozen=True)

    format: int
    freqgan: str
    training: TrainingRecord
    weights: WeightsRecord
    settings: dict[str, Any]


def pack_model(
    settings: ModelSettings, statistics: BandStatistics, averages: Mapping[str, Mapping[str, Tensor]],
    training: TrainingRecord,
) -> dict[str, bytes]:  # fmt: skip
    """Return the files of a model's folder by name.

    Args:
        settings: what the model is built by; of those of a run only the model's own are stored.
        statistics: of its bands.
        averages: averaged weights (...) by the name of the stage and then their own, as checkpoints have them.
        training: for ``config.json``.

    """
    tensors = add_prefix(STATISTICS, statistics.tensors())
    for stage, state in averages.items():
        tensors |= add_prefix(f"{STAGES}.{stage}", state)
    weights = save_tensors({name: x.contiguous() for name, x in tensors.items()})
    own = {name: getattr(settings, name) for name in ModelSettings.model_fields}
    values = json.loads(ModelSettings.model_construct(**own).model_dump_json())
    # Places of the training that images are not made with; features of another model's are those of training images.
    values["conditioning"]["run"] = values["image_stage"]["feature_matching"]["network"] = ""
    record = WeightsRecord(size_bytes=len(weights), sha256=hashlib.sha256(weights).hexdigest())
    config = ModelConfig(format=FORMAT, freqgan=VERSION, training=training, weights=record, settings=values)
    return {CONFIG: config.model_dump_json(indent=1).encode() + b"\n", WEIGHTS: weights}


def read_config(content: bytes, where: str) -> ModelConfig:
    """Return the contents of a ``config.json``.

    Raises:
        InputError: it is none, or of a newer format; ``where`` it is, is named.

    """
    try:
        config = ModelConfig.model_validate_json(content)
    except ValidationError as error:
        raise InputError(f"{where} does not describe a model of freqgan: {invalid_values(error)}") from error
    if config.format > FORMAT:
        raise InputError(
            f"{where} has format {config.format}, and this version of freqgan reads formats up to {FORMAT}: install "
            f"freqgan {config.freqgan} or newer"
        )
    return config


def read_settings(config: ModelConfig, where: str) -> ModelSettings:
    """Return the settings of the model; InputError where they are none that this version of freqgan knows."""
    try:
        return ModelSettings.model_validate(config.settings, context=AS_STORED)
    except ValidationError as error:
        raise InputError(
            f"{where}: the settings of the model are none that freqgan {VERSION} knows ({invalid_values(error)}); it "
            f"was written by {config.freqgan}"
        ) from error


def read_weights(
    content: bytes, config: ModelConfig, where: str
) -> tuple[BandStatistics, dict[str, dict[str, Tensor]]]:
    """Return the statistics and the averaged weights (...) by stage.

    Raises:
        InputError: the file is not the one that ``config`` records, or holds something else; ``where`` it is, is named.

    """
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != config.weights.sha256:
        raise InputError(
            f"{where} is damaged: {len(content)} bytes with sha256 {sha256[:12]}..., and {CONFIG} says "
            f"{config.weights.size_bytes} bytes with {config.weights.sha256[:12]}...: copy the folder again"
        )
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise InputError(f"{where} is no file of tensors: {error}") from error
    stages = config.training.steps
    return BandStatistics.from_tensors(strip_prefix(STATISTICS, tensors)), {
        stage: strip_prefix(f"{STAGES}.{stage}", tensors) for stage in stages
    }


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Synthesiser:
    """Return the model in a folder that ``freqgan export`` wrote, ready to make images.

    ``load_model("mine").sample(seed=0, count=8).images`` are eight images (8, C, N, N) of about [-1, 1].

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        device: to generate on.

    Raises:
        InputError: there is no such folder, or a file of it is damaged or of a newer version.

    """
    if "://" in str(folder):
        raise InputError(f"{folder} is no folder of this machine: copy it first, freqgan export {folder} --out DIR")
    contents = []
    for name in (CONFIG, WEIGHTS):
        try:
            contents.append((Path(folder) / name).read_bytes())
        except OSError as error:
            raise InputError(
                f"{folder} holds no model, {name} cannot be read ({error.strerror}): name a folder that freqgan export "
                "wrote"
            ) from error
    where = [f"{folder}/{name}" for name in (CONFIG, WEIGHTS)]
    config = read_config(contents[0], where[0])
    statistics, averages = read_weights(contents[1], config, where[1])
    return Synthesiser(read_settings(config, where[0]), statistics, averages, torch.device(device))
