"""What this machine computes on."""

from __future__ import annotations

import torch

from cluster.run.settings import RunSettings
from freqgan.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """Return the device for ``wanted`` of auto, cpu, cuda; InputError when cuda is wanted and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for and this process sees no GPU; set device=auto or device=cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def emulates_precision(settings: RunSettings) -> bool:
    """Return whether this machine lacks instructions for ``precision`` and would be several times slower."""
    if settings.precision != "bfloat16" or choose_device(settings.device).type != "cpu":
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
