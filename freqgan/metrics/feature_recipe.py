"""How networks of learned features are taught, without the networks."""

from __future__ import annotations

from pydantic import Field

from freqgan.metrics.catalogue import LEARNED, LEARNED_HOLDOUT
from freqgan.setting_group import SettingGroup

VERSION = 1
"""Of everything that a network of learned features depends on beside its recipe and its images: networks that another
version taught are taught anew. It changes with the arithmetic of ``feature_network`` and ``feature_training``."""

FEWEST_STEPS = 4
"""Batches without which a learning rate cannot rise and fall."""


class FeatureRecipe(SettingGroup):
    """How one network is taught; ``name``, that of the family of metrics it serves, is part of its seed."""

    name: str = Field(description="Name of the family of metrics.")
    width: int = Field(ge=4, le=512, description="Channels of the first of three stages; features are 4 times as many.")
    most_steps: int = Field(1_000, ge=FEWEST_STEPS, description="Batches to learn from, at most.")
    least_steps: int = Field(20, ge=FEWEST_STEPS, description="Batches to learn from, at least.")
    passes: int = Field(20, ge=1, description="How often each image is seen, as far as `most_steps` go.")
    batch: int = Field(128, ge=2, description="Images in a batch.")
    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate, a quarter of the way through.")
    weight_decay: float = Field(0.05, ge=0, description="Of AdamW.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of every answer that is spread over all.")

    def steps(self, images: int) -> int:
        """Return how many batches a network learns from that is given so many ``images``."""
        return min(self.most_steps, max(self.least_steps, self.passes * images // self.batch))


TUNING_RECIPE = FeatureRecipe(name=LEARNED, width=24)
RECIPES = (TUNING_RECIPE, FeatureRecipe(name=LEARNED_HOLDOUT, width=32, most_steps=800))
"""The network that systems are tuned by, and another one that nobody tunes by. CIFAR-10: 80 and 85 s on one core."""
