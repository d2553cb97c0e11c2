"""FID, KID, precision and recall on the features of a network that the user gives.

Published figures use the Inception network of TensorFlow, 2015-12-05, which cannot be shipped here. It is to be had as
a TorchScript file (``inception-2015-12-05.pt``) that takes uint8 images of any size and resizes them itself as
TensorFlow did; any other TorchScript module from uint8 images to features serves as well, under its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.metrics.frechet import frechet_distance
from freqgan.metrics.neighbours import precision_recall

Extractor = Callable[[Tensor], Tensor]
BATCH = 64
SUBSETS, SUBSET_SIZE = 100, 1_000
CHANNELS = 3


def extractor_of(module: Any, name: str) -> Extractor:
    """Return a function uint8 (N, C, H, W) -> (N, d) float64 around a TorchScript ``module``.

    Raises:
        InputError: the module cannot be called; when first used, if it does not give finite features (N, d).

    """
    if not hasattr(module, "forward"):
        raise InputError(f"{name} is a TorchScript module without `forward`: give a network from images to features")
    takes_flag = "return_features" in str(module.forward.schema)  # of NVIDIA's Inception: features, not classes

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        rows = []
        for batch in torch.split(images, BATCH):
            colour = batch.expand(-1, CHANNELS, -1, -1) if batch.shape[1] == 1 else batch
            try:
                features = module(colour, return_features=True) if takes_flag else module(colour)
            except RuntimeError as error:
                last = str(error).strip().rpartition("\n")[2]
                raise InputError(f"{name} does not take uint8 images {tuple(colour.shape)}: {last}") from error
            is_table = isinstance(features, Tensor) and features.ndim == 2
            if not is_table or len(features) != len(batch) or not features.numel():
                shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise InputError(f"{name} gave {shape} for {len(batch)} images; features of shape (N, d) are needed")
            if not torch.isfinite(features).all():
                raise InputError(f"{name} gave features that are no finite numbers; give a network whose weights are")
            rows.append(features.double())
        return torch.cat(rows)

    return extract


def inception_scores(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return FID, KID x 1000, precision and recall of (N, d) and (M, d) features.

    * fid: Frechet distance (Heusel et al. 2017), float64; compare only at equal numbers of images.
    * kid: unbiased squared discrepancy with kernel (x.y / d + 1)^3, the mean of 100 subsets of 1,000 (Binkowski et al.
      2018), times 1000; it may fall below 0 by chance.
    * precision, recall: k = 3 neighbourhoods (Kynkaanniemi et al. 2019).
    """
    precision, recall = precision_recall(reference, candidate)
    return {
        "fid": frechet_distance(reference, candidate),
        "kid": 1_000 * _kid(reference.double(), candidate.double()),
        "precision": precision,
        "recall": recall,
    }


def _kid(reference: Tensor, candidate: Tensor) -> float:
    size = min(SUBSET_SIZE, len(reference), len(candidate))
    rng = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(SUBSETS):
        x, y = (features[torch.randperm(len(features), generator=rng)[:size]] for features in (reference, candidate))
        xx, yy, xy = (((a @ b.T) / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        pairs = size * (size - 1)
        total += float((xx.sum() - xx.trace() + yy.sum() - yy.trace()) / pairs - 2 * xy.mean())
    return total / SUBSETS
