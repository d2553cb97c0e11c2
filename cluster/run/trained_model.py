"""The generators of a checkpoint, with the model of another run whose images they are shown, if they are shown such.

So a cascade is built: a second stage makes an image that follows the image that the base makes of the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from cluster.data.decoding import fit_image
from cluster.data.settings import DataSettings
from cluster.run.base_record import BaseRecord, changed_text
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint, open_checkpoint
from cluster.run.feature_networks import features_of
from cluster.run.layout import COMPONENTS
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from freqgan.errors import InputError, first_line
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.model.expert_settings import GenerationSettings
from freqgan.pixels import to_pixels

MOST_BLOCKS = 160
"""Blocks of 64 images whose features are remembered: an evaluation makes 10,000 images, some commands several times."""
REMEDY = "put it back, name the folder it is in now by --conditioning-run, or give an example by --like"

Note = Callable[[str], None]
Numbers = tuple[int, ...]


class BaseError(InputError):
    """The model whose images another one is shown is not there, or cannot be shown to it."""


def open_model(
    run: str,
    *,
    best: bool = False,
    at_images: int | None = None,
    note: Note = lambda text: None,
    generation: Callable[[RunSettings], GenerationSettings] | None = None,
    base: str | None = None,
    device: torch.device | None = None,
) -> tuple[Checkpoint, Synthesiser]:
    """Return the newest checkpoint of ``run`` whose generators are undamaged, and these, on ``device`` or the CPU.

    Nothing is read but what a picture needs; see :func:`cluster.run.checkpoints.open_checkpoint` for the other
    arguments and errors. ``generation`` gives what is to take the place of the checkpoint's ``settings.generation``,
    and ``base`` of its ``conditioning.run``.
    """

    def read(checkpoint: Checkpoint) -> tuple[Checkpoint, Synthesiser]:
        _check_whole(run, checkpoint.settings)
        if base is not None and not checkpoint.settings.conditioning.run:
            raise InputError(
                f"--conditioning-run {base}: {run} was trained without conditioning.run, and is shown no other model's "
                "images; leave it out"
            )
        chosen = None if generation is None else generation(checkpoint.settings)
        return checkpoint, synthesiser_of(checkpoint, chosen, note, base, device)

    return open_checkpoint(run, read, best=best, at_images=at_images, note=note)


def synthesiser_of(
    checkpoint: Checkpoint,
    generation: GenerationSettings | None = None,
    note: Note = lambda text: None,
    base: str | None = None,
    device: torch.device | None = None,
) -> Synthesiser:
    """Return the generators of ``checkpoint``.

    Args:
        checkpoint: its averaged weights and statistics are read.
        generation: in place of its settings, if given.
        note: is told where the model whose images it is shown is another than in training.
        base: the run of that model, in place of the one in the settings.
        device: to generate on; the CPU if it is None. Another model's images are made on the CPU.

    """
    return _synthesiser_of(checkpoint, generation, note, base, (), device)


def check_base(settings: RunSettings) -> BaseRecord | None:
    """Return what is to be recorded of the model whose images are shown; None where ``settings`` name no such run.

    Its manifest is read, and those of the models whose images it is shown itself.

    Raises:
        InputError: there is no checkpoint yet, its images have other channels, or it is shown images of this run.

    """
    run = settings.conditioning.run
    if not run:
        return None
    followers: tuple[str, ...] = (open_folder(settings.run).url,)
    checkpoint = _find_base(run, settings, followers, "train it first, or leave conditioning.run out")
    record = BaseRecord.of(run, checkpoint)
    while further := base_of(checkpoint):
        followers += (_folder_of(checkpoint),)
        run, settings = further, checkpoint.settings
        checkpoint = _find_base(run, settings, followers, "put it back, or leave conditioning.run out")
    return record


def base_of(checkpoint: Checkpoint) -> str:
    """Return the run whose images ``checkpoint`` is shown, where it was in training; "" where it is shown none."""
    record = BaseRecord.in_manifest(checkpoint.manifest)
    run = checkpoint.settings.conditioning.run
    return record.run if record is not None and run else run


class BaseFeatures:
    """The features of images that the newest model of another run makes of the same seed, block by block.

    The model is opened when features are first asked for: images of asked examples are made without it.

    Args:
        checkpoint: of the model that is shown them.
        run: of the other model.
        note: is told where that is another than in training.
        followers: URLs of the runs, this model's at the end, each of which is shown the images of the next.

    """

    def __init__(self, checkpoint: Checkpoint, run: str, note: Note, followers: tuple[str, ...]) -> None:
        self.checkpoint, self.run, self.note, self.followers = checkpoint, run, note, followers
        self._remembered = lru_cache(MOST_BLOCKS)(self._features)

    def __call__(self, seed: int, block: int, labels: Tensor) -> Tensor:
        """Return the features (64, d) of a block; ``labels`` (64,) are asked of the other model if it knows them."""
        return self._remembered(seed, block, tuple(labels.tolist()) if self._has_same_classes else None)

    @cached_property
    def _base(self) -> tuple[Checkpoint, Synthesiser]:
        settings, record = self.checkpoint.settings, BaseRecord.in_manifest(self.checkpoint.manifest)

        def read(checkpoint: Checkpoint) -> tuple[Checkpoint, Synthesiser]:
            return checkpoint, _synthesiser_of(checkpoint, None, self.note, None, self.followers)

        _find_base(self.run, settings, self.followers, REMEDY)
        checkpoint, model = open_checkpoint(self.run, read)
        now = BaseRecord.of(self.run, checkpoint)
        if record is not None and record.digest != now.digest:
            self.note(changed_text(record, now))
        return checkpoint, model

    @cached_property
    def _has_same_classes(self) -> bool:
        base, own = self._base[0], self.checkpoint
        same = base.settings.classes == own.settings.classes and base.class_names == own.class_names
        return own.settings.classes > 0 and same

    def images(self, seed: int, block: int, labels: Numbers | None) -> Tensor:
        """Return the other model's images of a block (64, C, N, N), stored ones of this model's size.

        They are of the classes ``labels``; drawn where these are None.
        """
        base, targets = self._base[1], None
        if labels is not None:
            targets = targets_for(base, seed, BLOCK, TargetParts(labels=torch.tensor(labels)), block * BLOCK)
        return self.fitted(base.draw(base.block_draws(seed, block, targets)).images)

    def fitted(self, images: Tensor) -> Tensor:
        """Return images (B, C, n, n) in [-1, 1] as stored ones (B, C, N, N), resized as images of shards are."""
        settings = self.checkpoint.settings
        policy = DataSettings().model_policy(settings)
        rows = to_pixels(images, settings.bit_depth).numpy()
        return torch.from_numpy(np.stack([fit_image(row.transpose(1, 2, 0), policy) for row in rows]))

    def _features(self, seed: int, block: int, labels: Numbers | None) -> Tensor:
        mapping = self.checkpoint.statistics().feature_map
        return features_of(self.images(seed, block, labels), self.checkpoint.settings, mapping)


def _synthesiser_of(
    checkpoint: Checkpoint,
    generation: GenerationSettings | None,
    note: Note,
    base: str | None,
    followers: tuple[str, ...],
    device: torch.device | None = None,
) -> Synthesiser:
    settings = checkpoint.settings
    if generation is not None:
        settings = settings.model_copy(update={"generation": generation})
    source, run = None, base or base_of(checkpoint)
    if run:
        source = BaseFeatures(checkpoint, run, note, (*followers, _folder_of(checkpoint)))
    return Synthesiser(settings, checkpoint.statistics(), checkpoint.averages(), device, source)


def _find_base(run: str, settings: RunSettings, followers: tuple[str, ...], remedy: str) -> Checkpoint:
    """Return the newest checkpoint of ``run``, whose images a model of ``settings`` is to be shown.

    BaseError where there is none, it is a part of a model, has other channels, or is among ``followers``.
    """
    _check_cycle(run, open_folder(run).url, followers)
    try:
        checkpoint = find_checkpoint(run)
    except InputError as error:
        reason = first_line(error).partition(": name the run folder")[0]
        raise BaseError(f"conditioning.run: {reason}: {remedy}") from error
    _check_cycle(run, _folder_of(checkpoint), followers)
    _check_whole(run, checkpoint.settings)
    if checkpoint.settings.channels != settings.channels:
        raise BaseError(
            f"conditioning.run: images of {run} have channels={checkpoint.settings.channels}, and this model "
            f"channels={settings.channels}; name a run of the same channels"
        )
    return checkpoint


def _check_cycle(run: str, url: str, followers: tuple[str, ...]) -> None:
    if url in followers:
        way = " -> ".join([*followers[followers.index(url) :], url])
        raise BaseError(
            f"conditioning.run: a model would be shown its own images by {run} ({way}); name a run that is trained "
            "without these"
        )


def _folder_of(checkpoint: Checkpoint) -> str:
    """Return the URL of the folder of the run, or of the version of a model, that ``checkpoint`` is in."""
    return checkpoint.root.url.rpartition("/")[0]


def _check_whole(run: str, settings: RunSettings) -> None:
    if settings.only:
        whole = settings.run.rpartition(f"/{COMPONENTS}/")[0]
        raise InputError(f"{run} holds {', '.join(settings.only)} alone; name the whole run: {whole}")
