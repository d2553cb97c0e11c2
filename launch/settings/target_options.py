"""The targets that options of a command ask for: a class, a vector, a text, an example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster.data.image_files import read_images
from cluster.data.targets import array_in
from cluster.run.checkpoint import Checkpoint
from cluster.run.feature_networks import check_shows_features, features_like
from cluster.run.labels import class_of
from cluster.storage.folder import split_object
from freqgan.errors import InputError
from freqgan.generation.targets import TargetParts


@dataclass(frozen=True)
class TargetOptions:
    """What all images of a command are to show; None leaves it open.

    Attributes:
        category: a class, by its name or number.
        vector: a .npy file with the embedding of an image, or with one for each image.
        prompt: a text.
        like: an image file, an example.

    """

    category: str | None = None
    vector: str | None = None
    prompt: str | None = None
    like: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return any(value is not None for value in vars(self).values())

    def parts(self, checkpoint: Checkpoint, count: int, first: int = 0) -> TargetParts:
        """Return the parts of the targets of images ``first`` .. ``first + count``.

        Raises:
            InputError: the model has no such class, the file is no vector or image, or its features cannot be had.

        """
        label = class_of(self.category, checkpoint)
        return TargetParts(
            labels=None if label is None else torch.full((count,), label),
            embedding=None if self.vector is None else _rows(read_vectors(self.vector), self.vector, first, count),
            features=None if self.like is None else _features(self.like, checkpoint).expand(count, -1),
            captions=None if self.prompt is None else [_text(self.prompt)] * count,
        )


NO_TARGETS = TargetOptions()
"""Leaves all open."""


def _text(prompt: str) -> str:
    if not prompt.strip():
        raise InputError("--prompt is empty: give a text, or leave it out")
    return prompt


def _features(url: str, checkpoint: Checkpoint) -> Tensor:
    check_shows_features(checkpoint.settings)  # before a file is read for nothing
    return features_like(read_images([url], checkpoint.settings), checkpoint)


def read_vectors(url: str) -> Tensor:
    """Return the vectors (n, d) float32 of a .npy file, a path or s3:// URL; a single one is (1, d).

    Raises:
        InputError: it is no .npy of numbers, of one or two dimensions.

    """
    folder, name = split_object(url)
    data = folder.read(name)
    try:
        array = array_in(data, name)
    except InputError as error:
        raise InputError(f"--vector {url} is no .npy file of numbers ({error})") from error
    if array.ndim not in (1, 2) or not array.size:
        raise InputError(
            f"--vector {url} holds an array of shape {array.shape}, and one vector (d,) or several (n, d) of numbers "
            "are wanted; write such with numpy.save"
        )
    return torch.from_numpy(np.atleast_2d(array).copy())


def _rows(vectors: Tensor, url: str, first: int, count: int) -> Tensor:
    """Return those of images ``first`` ..: one for all, or one each."""
    if len(vectors) == 1:
        return vectors.expand(count, -1)
    if len(vectors) < first + count:
        raise InputError(
            f"--vector {url} holds {len(vectors)} vectors, and {first + count} images or more are wanted; lower "
            "--count, or give a single vector for all"
        )
    return vectors[first : first + count]
