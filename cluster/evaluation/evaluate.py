"""The images that an evaluation compares: real ones from shards, others from a checkpoint or from files."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cluster.data.decoding import Pixels, decode_image, fit_image
from cluster.data.image_folders import list_images, open_images
from cluster.data.quarantine import QuarantinedImage, images_of, reasons_text
from cluster.data.reader import BatchReader
from cluster.data.sampler import permutation
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index
from cluster.data.shards import ShardSet
from cluster.evaluation.learned_networks import learned_networks
from cluster.run.checkpoint import Checkpoint
from cluster.run.data_source import sound_batch
from cluster.run.settings import RunSettings
from cluster.run.trained_model import synthesiser_of
from cluster.storage.folder import split_object
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError, first_line
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.metrics.catalogue import FEWEST, accuracy_sentence
from freqgan.metrics.evaluation import Measure, Score, inception_measure, is_one_picture, measure, scored
from freqgan.metrics.feature_network import LearnedFeatures
from freqgan.metrics.feature_recipe import RECIPES, FeatureRecipe
from freqgan.metrics.inception import extractor_of
from freqgan.metrics.learned_features import accuracy_scores, learned_measure
from freqgan.pixels import to_eight_bits, to_pixels
from freqgan.sizes import Size, size_setting

READ = 500
MIXED_SHARDS = 16
TELLING = 1_000
"""What ``watch`` takes. Of 64, images of the demo came out nearer to real ones than real ones do (packets, .96)."""

_known_floors: dict[tuple[object, ...], dict[str, float]] = {}
"""Floors by the contents of the real images."""


Part = Literal["image", "chain", "other"]
"""The blend as learned, the bands alone (alpha, or lambda, = 1), the conventional generator alone (= 0)."""


def parts_of(settings: RunSettings) -> tuple[Part, ...]:
    """Return the parts whose images differ: without an image stage, or without bands, there is one."""
    return ("image", "chain", "other") if settings.blends else ("image",)


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: str,
    *,
    count: int,
    seed: int,
    note: Callable[[str], None],
    parts: Sequence[Part] = ("image",),
    extra: Sequence[Measure] = (),
    synthesiser: Synthesiser | None = None,
    learned: bool = True,
) -> dict[Part, dict[str, Score]]:
    """Return every metric of ``count`` images of ``checkpoint`` against real ones; fewer where ``data`` has too few.

    ``synthesiser`` has its generators, where they are in memory already. Features are ``learned`` on the images of
    ``data`` as well, unless that is False. Labels are drawn uniformly for a model with classes. ``note`` is told of
    progress and of a smaller count.
    """
    settings, index = checkpoint.settings, build_index(data)
    policy = evaluation_policy(settings)
    reference, other_real = real_images(index, policy, _fitting(count, index, data, note), data, note)
    networks = learned_networks(index, policy, note) if learned else []
    families = (*map(learned_measure, networks), *extra)
    number = len(reference)
    note(f"generating {number} images of step {checkpoint.step}")
    synthesiser = synthesiser or synthesiser_of(checkpoint, note=note)
    blocks = [synthesiser.sample(seed, min(BLOCK, number - first), first) for first in range(0, number, BLOCK)]
    images: dict[Part, list[Tensor]] = {
        "image": [block.images for block in blocks],
        "chain": [block.frequency for block in blocks],
        "other": [block.conventional for block in blocks],
    }
    frames = settings.frames
    floors = _floors(reference, other_real, families, note, frames)
    scores: dict[Part, dict[str, Score]] = {}
    for part in parts:
        pixels = torch.cat([to_pixels(block) for block in images[part]])
        values = measure(reference, pixels, note=_telling(part, note), extra=families, frames=frames)
        scores[part] = scored(values, floors) | _accuracies(networks)
    _note_accuracies(networks, note)
    return scores


def evaluate_files(
    source: str,
    data: str,
    *,
    count: int,
    size: Size | None,
    note: Callable[[str], None],
    extra: Sequence[Measure] = (),
    overviews: Sequence[str] = (),
    learned: bool = True,
) -> dict[str, Score]:
    """Return every metric of up to ``count`` image files of a folder or zip against real ones, all fitted to ``size``.

    ``size``, height and width, is the short side of the first file, cut to a multiple of 8, unless given. Of more
    files than ``count`` some are drawn. Files called as one of ``overviews`` are left out: they show other files.
    ``learned`` is as for :func:`evaluate_checkpoint`.
    """
    for side in size or ():
        if side % 2:
            raise InputError(
                f"--size: {side} is odd, and wavelet bands need an even number of pixels; take {side - 1} or {side + 1}"
            )
    index = build_index(data)
    with open_images(source) as files:
        listed = list_images(files).images
        names = [name for name in listed if name.rpartition("/")[2] not in overviews]
        if left_out := sorted(set(listed) - set(names)):
            note(f"left out {', '.join(left_out)}: an overview of others")
        number = _fitting(min(count, len(names)), index, data, note)
        note(f"reading {number} of {len(names)} files")
        chosen = [names[i] for i in permutation(len(names), 0, "evaluate").tolist()[:number]]  # classes are folders
        decoded = (decode_image(files.read(name), f"{name} in {files.url}") for name in chosen)
        first = next(decoded)
        policy = ImagePolicy(size=size or max(8, min(first.shape[:2]) // 8 * 8))
        note(f"fitting all images to {size_setting(policy.shape)}; --size sets another size")
        candidate = np.stack([fit_image(pixels, policy) for pixels in itertools.chain([first], decoded)])
    reference, other_real = real_images(index, policy, number, data, note)
    networks = learned_networks(index, policy, note) if learned else []
    families = (*map(learned_measure, networks), *extra)
    pixels = torch.from_numpy(candidate[: len(reference)])
    values = measure(reference, pixels, note=_telling("files", note), extra=families)
    scores = scored(values, _floors(reference, other_real, families, note)) | _accuracies(networks)
    _note_accuracies(networks, note)
    return scores


def teach_networks(
    data: str, settings: RunSettings, note: Callable[[str], None], recipes: Sequence[FeatureRecipe] = RECIPES
) -> None:
    """Have the networks of ``recipes`` taught that measurements of ``settings`` against ``data`` take, unless they are.

    The recipes are those of an evaluation where none are given.
    """
    learned_networks(build_index(data), evaluation_policy(settings), note, recipes)


def inception_from(url: str) -> Measure:
    """Return FID and its relatives with the TorchScript network in the file ``url``, a path or s3:// URL.

    TorchScript is read by an unpickler of torch's own that knows tensors and its own types only: no Python code of the
    file is run.

    Raises:
        InputError: no such file, or no TorchScript.

    """
    folder, name = split_object(url)
    data = folder.read(name)
    try:
        module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"{url} is no TorchScript network ({reason}); give inception-2015-12-05.pt or one like it"
        ) from error
    return inception_measure(extractor_of(module.eval(), url))


def _floors(
    reference: Tensor,
    other_real: Tensor,
    extra: Sequence[Measure],
    note: Callable[[str], None],
    frames: int = 1,
) -> dict[str, float]:
    """Return every metric of real images against others, remembered for the images measured last.

    It takes as long as the metrics of generated images.
    """
    telling = _telling("real images against each other", note)
    weights = [family.weights for family in extra]
    if None in weights:
        return measure(reference, other_real, note=telling, extra=extra, frames=frames)
    digests = [hashlib.sha256(images.numpy().data) for images in (reference, other_real)]
    key = (frames, tuple(reference.shape), *(digest.hexdigest() for digest in digests), *weights)
    if key not in _known_floors:
        _known_floors.clear()
        _known_floors[key] = measure(reference, other_real, note=telling, extra=extra, frames=frames)
    return _known_floors[key]


def _accuracies(networks: Sequence[LearnedFeatures]) -> dict[str, Score]:
    """Return the accuracy of every network beside that of guessing, by name."""
    return {name: score for network in networks for name, score in accuracy_scores(network).items()}


def _note_accuracies(networks: Sequence[LearnedFeatures], note: Callable[[str], None]) -> None:
    for name, score in _accuracies(networks).items():
        note(accuracy_sentence(name, score.value, score.floor))


TAKES_LONG = {"critic_accuracy": ", for which a small network is trained: this takes longest"}


def _telling(what: str, note: Callable[[str], None]) -> Callable[[str], None]:
    """Tell ``note`` which family of metrics is measured, and of what."""
    return lambda family: note(f"measuring {what}: {family}{TAKES_LONG.get(family, '')}")


def _fitting(count: int, index: ShardSet, data: str, note: Callable[[str], None]) -> int:
    """Return ``count``, or half of the real images where that is less: the floor needs as many again."""
    available = index.sample_count // 2
    if min(available, count) < FEWEST:
        raise InputError(
            f"{count} images against the {index.sample_count} real ones of {data}: at least {FEWEST} are needed, "
            f"and {2 * FEWEST} real ones; give more images or more shards"
        )
    if available < count:
        note(f"{data} has {index.sample_count} images: comparing {available}, for the floor takes as many again")
    if min(available, count) < TELLING:
        note(f"of {min(available, count)} images values are largely chance; {TELLING:,} or more tell systems apart")
    return min(available, count)


def real_images(
    index: ShardSet, policy: ImagePolicy, count: int, data: str, note: Callable[[str], None]
) -> tuple[Tensor, Tensor]:
    """Return two sets of ``count`` different real images, uint8 (count, C, size, size) each.

    Their shuffled order depends on the shards alone.

    Those that are damaged are left out, and told; there are fewer where no others are left, and InputError where they
    are too few.
    """
    batches: list[Pixels] = []
    left_out: list[QuarantinedImage] = []
    order = DataSettings(shuffle_shards=MIXED_SHARDS)
    with BatchReader(index, policy, 0, order, most_damaged=index.sample_count) as ingest:
        for first in range(0, 2 * count, READ):
            if first < 2 * count:  # may have become less
                batch, damaged = sound_batch(ingest, first, min(READ, 2 * count - first))
                batches.append(batch.images)
                left_out += damaged
                count = min(count, (index.sample_count - len(images_of(left_out))) // 2)
    if left_out:
        note(f"{data}: {len(left_out)} damaged images are left out: {reasons_text(left_out)}")
    if count < FEWEST:
        raise InputError(
            f"{data}: without its damaged images {count} are left to compare, and {FEWEST} are needed: "
            f"{reasons_text(left_out)}; restore the shards or give more of them"
        )
    images = to_eight_bits(torch.from_numpy(np.ascontiguousarray(np.concatenate(batches))))
    if is_one_picture(images[:count]):
        raise InputError(
            f"{data}: {count} of its images, which others were to be compared with, are all the same picture; give "
            "shards of different ones"
        )
    return images[:count], images[count : 2 * count]


def real_images_for(settings: RunSettings, data: str, count: int, note: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Return two sets of real images that those of ``settings`` are measured against, see :func:`real_images`.

    They are uint8 (count, C, N, N) each; fewer than ``count`` where ``data`` has too few, and told.
    """
    index = build_index(data)
    return real_images(index, evaluation_policy(settings), _fitting(count, index, data, note), data, note)


def check_real(data: str, settings: RunSettings, count: int) -> None:
    """Refuse real images that nothing can be measured against, before hours go into what is to be measured.

    Raises:
        InputError: no such shards, too few images in them, or all of them the same.

    """
    index = build_index(data)
    number = _fitting(count, index, data, lambda _: None)
    policy = evaluation_policy(settings)
    order = DataSettings(shuffle_shards=MIXED_SHARDS)
    with BatchReader(index, policy, 0, order, most_damaged=index.sample_count) as ingest:
        batch, _ = sound_batch(ingest, 0, FEWEST)
    if is_one_picture(torch.from_numpy(np.ascontiguousarray(batch.images))):  # chance, perhaps
        real_images(index, policy, number, data, lambda _: None)


def evaluation_policy(settings: RunSettings) -> ImagePolicy:
    """Return how real images are fitted that those of ``settings`` are measured against: cut in the middle."""
    policy = settings.ingest.model_policy(settings)
    return replace(policy, crop="center", bit_depth=FLOAT_BITS if policy.bit_depth == FLOAT_BITS else 8)
