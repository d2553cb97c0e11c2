"""Targets that a person asks for: what is given takes its place, the rest is that of some training image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.seeds import generator_for
from freqgan.targets import TargetLayout, encoded_caption


class TargetParts(NamedTuple):
    """What is asked for of B images; None leaves a part open.

    Attributes:
        labels: (B,) int64.
        embedding: (B, d), in the unit of the training data.
        features: (B, d), normal.
        captions: B texts.

    """

    labels: Tensor | None = None
    embedding: Tensor | None = None
    features: Tensor | None = None
    captions: Sequence[str] | None = None

    @property
    def given(self) -> list[str]:
        """The names of the parts that are given."""
        return [name for name, value in self._asdict().items() if value is not None]


def targets_for(model: Synthesiser, seed: int, count: int, parts: TargetParts, first: int = 0) -> Tensor | None:
    """Return targets (count, K), or labels (count,), of samples ``first`` .. of ``seed``, with ``parts`` in them.

    They are as the shards have them.

    What is left open is that of a training image at random, of the class that is asked for where there are some; the
    features are those of another model's image, where the model is shown such. None for a model without targets.

    Raises:
        InputError: the model has no such part, or one of another length.

    """
    layout = model.settings.target_layout
    _check(layout, parts, count)
    if not layout.packed:
        if parts.labels is not None or not layout:
            return parts.labels
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        drawn = torch.cat([model.random_targets(seed, block) for block in blocks])
        return drawn[first - blocks[0] * BLOCK :][:count]
    rows = torch.stack([_row(model, seed, first + i, parts.labels, i) for i in range(count)])
    columns = layout.columns
    if parts.labels is not None:
        rows[:, columns["label"]] = parts.labels[:, None].to(rows)
    if parts.embedding is not None:
        rows[:, columns["embedding"]] = parts.embedding.to(rows)
    if parts.features is None:
        rows = model.with_features(rows, seed, first)
    else:
        rows[:, columns["features"]] = parts.features.to(rows)
    if parts.captions is not None:
        rows[:, columns["caption"]] = torch.stack([_caption_row(text, layout.caption) for text in parts.captions]).to(
            rows
        )
    return rows


def _caption_row(text: str, length: int) -> Tensor:
    """Return the bytes of ``text``, (T,) float32 for T = ``length``, zeros behind them."""
    return torch.tensor(list(encoded_caption(text, length).ljust(length, b"\0")), dtype=torch.float32)


def _row(model: Synthesiser, seed: int, number: int, labels: Tensor | None, i: int) -> Tensor:
    """Return the stored target (K,) that sample ``number`` begins with."""
    known = model.known_targets
    if labels is not None:
        of_class = known[known[:, model.settings.target_layout.columns["label"]].squeeze(1) == labels[i].to(known)]
        known = of_class if len(of_class) else known
    rng = generator_for(seed, "target", number)
    return known[int(torch.randint(len(known), (1,), generator=rng))].clone()


def _check(layout: TargetLayout, parts: TargetParts, count: int) -> None:
    options = {"labels": "--class", "embedding": "--vector", "features": "--like", "captions": "--prompt"}
    lengths = {
        "labels": layout.classes,
        "embedding": layout.embedding,
        "features": layout.features,
        "captions": layout.caption,
    }
    kinds = {"labels": "class", "embedding": "embedding", "features": "features", "captions": "caption"}
    for name in parts.given:
        if not lengths[name]:
            known = ", ".join(kind for part, kind in kinds.items() if lengths[part]) or "none"
            raise InputError(
                f"{options[name]}: the model was trained without conditioning={kinds[name]} (it has {known}); leave "
                f"{options[name]} out, or train with conditioning={kinds[name]}"
            )
    for name in ("embedding", "features"):
        value: Tensor | None = getattr(parts, name)
        if value is not None and value.shape[1] != lengths[name]:
            raise InputError(
                f"{options[name]}: {value.shape[1]} numbers were given, and the model takes {lengths[name]}: give what "
                "made the vectors beside its training images"
            )
        if value is not None and not bool(value.isfinite().all()):
            raise InputError(f"{options[name]}: some numbers are not finite; give finite ones")
    if parts.labels is not None and not bool(((parts.labels >= 0) & (parts.labels < layout.classes)).all()):
        raise InputError(f"--class: the model has classes 0 to {layout.classes - 1}; give one of these")
