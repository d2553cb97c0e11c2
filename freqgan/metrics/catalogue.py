"""Which metrics there are, without their arithmetic: settings and policies are checked with it, and need no torch."""

from __future__ import annotations

from collections.abc import Mapping
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
    "clip_frechet": "kinds of motion that are missing",
    "clip_bands": "which changes are wrong",
    "clip_critic": "whether changes fit what changes; 0.5 is perfect",
    "clip_change": "too much or too little change",
    "clip_motion": "how far things move, and where",
    "clip_blockiness": "jerks from pair to pair of frames",
    LEARNED: "what images show, by a network taught on real ones",
    LEARNED_HOLDOUT: "the same, by another network: do not tune by it",
}
"""What each family of metrics sees, in the order in which they are measured; those of clips begin with clip_."""
ACCURACIES: Final = {
    "label_accuracy": "real images that its network labels right; floor: by chance",
    "instance_accuracy": "real images that its network knows in another view; floor: by chance",
}
"""How good the network of a family of learned features is, by what it learnt: no distances, but what they are worth."""
HIGH_IS_GOOD = (
    "critic_accuracy.log_loss",
    "clip_critic.log_loss",
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


WEAK: Final = 0.25
"""Share of the way from guessing to always right; a network that is not so far has learnt little."""
_TELLS: Final = {
    "label_accuracy": "names the label of",
    "instance_accuracy": "knows, in another view, which of many it is for",
}


def is_accuracy(metric: str) -> bool:
    """Return whether ``metric`` says how good a network is, and not how good images are."""
    return metric.partition(".")[2] in ACCURACIES


def accuracy_sentences(scores: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Return what the networks of learned features have right on held-out real images, of {metric: {value, floor}}."""
    return [
        accuracy_sentence(name, score["value"], score["floor"])
        for name, score in scores.items()
        if is_accuracy(name) and score["value"] is not None and score["floor"] is not None
    ]


def accuracy_sentence(metric: str, accuracy: float, chance: float) -> str:
    """Return how good the network of ``metric`` is, such as "learned.label_accuracy", and whether that is weak."""
    family, _, kind = metric.partition(".")
    weak = accuracy - chance < WEAK * (1 - chance)
    return (
        f"The network of {family} {_TELLS[kind]} {accuracy:.1%} of real images held out from it; guessing has "
        f"{chance:.1%} right{': it is weak, and its distances say little of what images show' if weak else ''}."
    )
