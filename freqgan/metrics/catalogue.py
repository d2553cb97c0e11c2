"""Which metrics there are, without their arithmetic: settings and policies are checked with it, and need no torch."""

from __future__ import annotations

from typing import Final, Literal

FEWEST: Final = 64
"""Images of either kind; fewer are too few to measure anything."""
Yardstick = Literal["learned", "bands"]
"""What decides which checkpoint of a run is the best: what images show, or statistics of bands."""
LEARNED: Final = "learned"
LEARNED_HOLDOUT: Final = "learned_holdout"
LEARNED_FRECHET: Final = f"{LEARNED}.frechet"
"""The distance that says best how far images are from showing what real ones show."""
FAMILIES: Final = {
    "packet_frechet": "which band is wrong",
    "cross_band_frechet": "whether the bands belong to one image",
    "critic_accuracy": "whether detail fits the low band; 0.5 is perfect",
    "sliced_wasserstein": "finest detail",
    "spectrum_db": "blur, gain, lattices",
    "feature_frechet": "missing kinds of images",
    "feature_kernel": "missing kinds of images, few samples",
    "neighbours": "realism, variety, copies",
    LEARNED: "what images show, by a network taught on real ones",
    LEARNED_HOLDOUT: "the same, by another network: do not tune by it",
}
"""What each family of metrics sees, in the order in which they are measured."""
ACCURACIES: Final = {
    "label_accuracy": "real images that its network labels right; floor: by chance",
    "instance_accuracy": "real images that its network knows in another view; floor: by chance",
}
"""How good the network of a family of learned features is, by what it learnt: no distances, but what they are worth."""
HIGH_IS_GOOD = (
    "critic_accuracy.log_loss",
    "neighbours.density",
    "neighbours.coverage",
    "neighbours.recall",
    *(
        f"{family}.{name}"
        for family in (LEARNED, LEARNED_HOLDOUT)
        for name in ("precision", "density", "coverage", "recall", *ACCURACIES)
    ),
    "inception.precision",
    "inception.recall",
)
