"""Models of any settings with random weights: what is made of them does not depend on training."""

from __future__ import annotations

from typing import Any

from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE
from freqgan.tensor_dicts import Stateful, tensors_of
from freqgan.training.companion_stage import build_image_stage
from freqgan.training.experts import build_expert
from freqgan.training.fusion import FusionStage
from tests.support.models import chain_of

ALL_TARGETS: dict[str, Any] = {
    "kinds": ["class", "embedding", "features", "caption"], "embedding_length": 5, "features_length": 4,
    "caption_bytes": 8,
}  # fmt: skip
"""Of conditioning, with classes=3."""


def untrained_model(settings: ModelSettings) -> Synthesiser:
    """The generators of settings as a training begins with them."""
    chain = chain_of(settings)
    stages: dict[str, Stateful] = {}
    if settings.system == "fusion":
        stages[FUSION_STAGE] = FusionStage(chain)
    else:
        stages |= {gan.name: build_expert(chain, gan) for gan in chain.plan.gans}
        if settings.image_stage.enabled:
            stages[IMAGE_STAGE] = build_image_stage(chain)
    states = {name: tensors_of(stage.state_dict()) for name, stage in stages.items()}
    return Synthesiser(settings, chain.statistics, states)
