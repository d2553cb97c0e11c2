"""A model in memory, with what is told of it and of the images that it makes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from cluster.imaging.image_writing import is_picture
from cluster.run.checkpoint import Checkpoint
from cluster.run.trained_model import open_model
from cluster.serving.model_source import ModelVersion
from cluster.serving.packaging import file_kinds
from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError
from freqgan.generation.parts import PARTS, check_part
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.settings import ModelSettings

VERSION_HEADER, MODEL_HEADER = "X-Freqgan-Version", "X-Freqgan-Model"


@dataclass(frozen=True)
class HostedModel:
    """A model that answers.

    Attributes:
        version: which one.
        checkpoint: that it was read from.
        model: its generators.

    """

    version: ModelVersion
    checkpoint: Checkpoint
    model: Synthesiser

    @property
    def name(self) -> str:
        """The number of a version of a retrained model, else of the step."""
        return str(self.checkpoint.step if self.version.number is None else self.version.number)

    @cached_property
    def digest(self) -> str:
        """sha256 over name, type, shape and bytes of all that the averaged generators hold, in the order of names."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            values = tensor.cpu().contiguous()
            total.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every answer that it gives."""
        return {VERSION_HEADER: self.name, MODEL_HEADER: self.digest}

    def facts(self) -> dict[str, Any]:
        """Return what ``GET /v1/model`` tells of it, as JSON has it."""
        settings, plan = self.model.settings, self.model.chain.plan
        layout, layout_of_bands = settings.target_layout, settings.band_layout()
        lengths = {"class": layout.classes, "embedding": layout.embedding, "features": layout.features}
        return {
            "version": self.name,
            "model": self.digest,
            "step": self.checkpoint.step,
            "images": self.checkpoint.images,
            "lineage": self.version.facts,
            "system": settings.system,
            "size": settings.image_size,
            "height": settings.size[0],
            "width": settings.size[1],
            "channels": settings.channels,
            "bit_depth": settings.bit_depth,
            "frames": settings.frames,
            "temporal_bands": {time: layout_of_bands.coefficients(time) for time in layout_of_bands.times if time},
            "value_range": list(settings.value_range or _usual_range(settings.bit_depth)),
            "shown_channels": list(settings.display),
            "formats": list(file_kinds(settings)),
            "takes_images": takes_images(settings),
            "transform": settings.transform,
            "levels": settings.levels,
            "packets": ",".join(f"{level}={times}" for level, times in settings.packets.items()),
            "bands": [str(band) for band in self.model.chain.transform.bands()],
            "drawn_bands": [str(band) for gan in plan.gans for band in gan.bands],
            "experts": {gan.name: gan.kind for gan in plan.gans},
            "classes": layout.classes,
            "class_names": list(self.checkpoint.class_names),
            "targets": {name: n for name, n in (lengths | {"caption": layout.caption}).items() if n},
            "parts": [part for part in PARTS if self._has_part(part)],
            "generation": settings.generation.model_dump(mode="json"),
            "device": str(self.model.chain.device),
        }

    def _has_part(self, part: str) -> bool:
        try:
            check_part(self.model.settings, part)
        except InputError:
            return False
        return True


def takes_images(settings: ModelSettings) -> bool:
    """Return whether the model can enlarge or edit an image that is sent: a PNG holds all of one of its own."""
    return is_picture(settings)


def _usual_range(bit_depth: BitDepth) -> tuple[float, float]:
    """Return the least and the greatest number of whole pixels."""
    return 0.0, 2.0**bit_depth - 1


def load_model(
    version: ModelVersion, device: torch.device | None = None, note: Callable[[str], None] = lambda text: None
) -> HostedModel:
    """Return ``version`` on ``device``, or the CPU, with its digest worked out.

    ``note`` is told of checkpoints passed over.

    Raises:
        InputError: there is no sound checkpoint.

    """
    hosted = HostedModel(version, *open_model(version.url, note=note, device=device))
    _ = hosted.digest
    return hosted
