"""Draws in a safetensors file: the noises that images are made of, and how they have to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.storage.folder import split_object
from freqgan.bands import Band
from freqgan.companions.image_generator import rest_of_noise
from freqgan.errors import InputError
from freqgan.generation.synthesiser import BLOCK, Draws, Synthesiser
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_noise import rest_length
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.tensor_dicts import add_prefix, strip_prefix

DRAWS = "draws.safetensors"
NOISES, LABELS, CHOICES, RESTS, SEED, GENERATION = "noises", "labels", "choices", "rests", "seed", "generation"


class StoredDraws(NamedTuple):
    """Draws of images, at most 64 in each, and the settings under which they give these images."""

    blocks: list[Draws]
    generation: GenerationSettings


def pack_draws(blocks: Sequence[Draws], generation: GenerationSettings) -> bytes:
    """Return ``blocks`` of 64 images, the last with the rest of them, as the bytes of a file."""
    first = blocks[0]
    tensors: dict[str, Tensor] = {NOISES: torch.cat([draws.noises for draws in blocks], dim=1)}
    if first.targets is not None:
        tensors[LABELS] = torch.cat([draws.targets for draws in blocks if draws.targets is not None])
    choices = {str(band): torch.cat([draws.choices[band] for draws in blocks]) for band in first.choices}
    rests = {name: torch.cat([draws.rests[name] for draws in blocks]) for name in first.rests}
    tensors |= add_prefix(CHOICES, choices) | add_prefix(RESTS, rests)
    tensors[SEED] = torch.tensor(first.seed)
    text = torch.frombuffer(bytearray(generation.model_dump_json().encode()), dtype=torch.uint8)
    return save_tensors({name: x.contiguous().cpu() for name, x in (tensors | {GENERATION: text}).items()})


def read_draws(url: str, synthesiser: Synthesiser) -> StoredDraws:
    """Return what :func:`pack_draws` wrote into the file ``url``, a path or s3:// URL, for a model of the same plan.

    Raises:
        InputError: it is no such file, or of another model.

    """
    folder, name = split_object(url)
    try:
        tensors = load_tensors(folder.read(name))
    except SafetensorError as error:
        raise InputError(
            f"{url} is no safetensors file ({error}): give the {DRAWS} that `freqgan encode` wrote"
        ) from error
    _check(url, tensors, synthesiser)
    try:
        generation = GenerationSettings.model_validate_json(bytes(tensors[GENERATION].numpy()))
    except ValidationError as error:
        raise InputError(f"{url}: how its noises are to be drawn cannot be read; encode the images again") from error
    count, labels = tensors[NOISES].shape[1], tensors.get(LABELS)
    bands = {str(band): band for gan in synthesiser.chain.plan.gans for band in gan.bands}
    choices: dict[Band, Tensor] = {bands[text]: x for text, x in strip_prefix(CHOICES, tensors).items()}
    whole = Draws(tensors[NOISES], labels, choices, strip_prefix(RESTS, tensors), int(tensors[SEED]))
    parts = [whole.rows(slice(first, first + BLOCK)) for first in range(0, count, BLOCK)]
    return StoredDraws([part._replace(block=block) for block, part in enumerate(parts)], generation)


def _check(url: str, tensors: Mapping[str, Tensor], synthesiser: Synthesiser) -> None:
    """Raise InputError unless the tensors have the names, types and shapes that the model needs."""
    count = tensors[NOISES].shape[1] if NOISES in tensors and tensors[NOISES].ndim == 3 else 0
    wanted = _expected(synthesiser, count)
    for name, (shape, kind) in wanted.items():
        if name not in tensors:
            raise InputError(f"{url} has no {name}: it is no file of draws, or of another model")
        x = tensors[name]
        if shape is not None and (tuple(x.shape) != shape or 0 in shape[:1]):
            raise InputError(f"{url}: {name} has shape {tuple(x.shape)}, and this model needs {shape}: encode with it")
        if x.dtype != kind or (x.is_floating_point() and not bool(x.isfinite().all())):
            raise InputError(f"{url}: {name} is {x.dtype} or not finite, and should be numbers of {kind}: encode again")
    if more := sorted(tensors.keys() - wanted.keys()):
        raise InputError(f"{url} has {', '.join(more)} as well, which this model has no use for: encode with it")
    _check_indices(url, tensors, synthesiser)


def _expected(synthesiser: Synthesiser, count: int) -> dict[str, tuple[tuple[int, ...] | None, torch.dtype]]:
    """Return shape, where it is fixed, and type of every tensor for ``count`` images."""
    chain, settings = synthesiser.chain, synthesiser.settings
    length = settings.noise.dimensions
    wanted: dict[str, tuple[tuple[int, ...] | None, torch.dtype]] = {
        NOISES: ((settings.noise_count, count, length), torch.float32),
        SEED: ((), torch.int64),
        GENERATION: (None, torch.uint8),
    }
    layout = settings.target_layout
    if layout:
        wanted[LABELS] = ((count, layout.width), torch.float32) if layout.packed else ((count,), torch.int64)
    wanted |= {f"{CHOICES}.{band}": ((count,), torch.int64) for band in chain.choices(0, 0, 1)}
    if synthesiser.image is not None:
        rest = rest_of_noise(synthesiser.image.other, length, 0, 0, 1)
        wanted[f"{RESTS}.{IMAGE_STAGE}"] = ((count, rest.shape[1]), torch.float32)
    for name, flow in synthesiser.flows.items():
        channels, height, width = flow.noise_shape
        wanted[f"{RESTS}.{name}"] = ((count, rest_length(channels, (height, width), length)), torch.float32)
    return wanted


def _check_indices(url: str, tensors: Mapping[str, Tensor], synthesiser: Synthesiser) -> None:
    layout = synthesiser.settings.target_layout
    limits = {} if layout.packed else {LABELS: layout.classes}
    for band in synthesiser.chain.choices(0, 0, 1):
        limits[f"{CHOICES}.{band}"] = len(synthesiser.chain.plan.members(band))
    for name, limit in limits.items():
        if name in tensors and not bool(((tensors[name] >= 0) & (tensors[name] < limit)).all()):
            raise InputError(f"{url}: {name} are not all from 0 to {limit - 1}: encode the images again")
