"""Which metrics there are, without their arithmetic: settings and policies are checked with it, and need no torch."""

from __future__ import annotations

from typing import Final

FEWEST: Final = 64
"""Images of either kind; fewer are too few to measure anything."""
FAMILIES: Final = {
    "packet_frechet": "which band is wrong",
    "cross_band_frechet": "whether the bands belong to one image",
    "critic_accuracy": "whether detail fits the low band; 0.5 is perfect",
    "sliced_wasserstein": "finest detail",
    "spectrum_db": "blur, gain, lattices",
    "feature_frechet": "missing kinds of images",
    "feature_kernel": "missing kinds of images, few samples",
    "neighbours": "realism, variety, copies",
}
"""What each family of metrics sees, in the order in which they are measured."""
HIGH_IS_GOOD = (
    "critic_accuracy.log_loss",
    "neighbours.density",
    "neighbours.coverage",
    "neighbours.recall",
    "inception.precision",
    "inception.recall",
)
