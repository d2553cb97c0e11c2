"""What changes during training, each as a function of the images seen.

Progress is counted in images, never in steps or epochs, so the batch size and the cluster may
change between two runs of one training without moving a schedule.
"""

from __future__ import annotations

import math

from freqgan.recipe.settings import OptimiserSettings, TeacherForcingSettings


def cosine(start: float, end: float, images: int, over_images: int) -> float:
    """Return half a cosine from ``start`` (at 0 images) to ``end`` (at ``over_images`` and ever after).

    w start + (1 - w) end with w = (1 + cos(pi images / over_images)) / 2; both ends are met exactly.
    A schedule over no images has already ended.
    """
    progress = min(max(images / over_images, 0.0), 1.0) if over_images > 0 else 1.0
    weight = 0.5 * (1.0 + math.cos(math.pi * progress))
    return weight * start + (1.0 - weight) * end


def learning_rate_at(settings: OptimiserSettings, images: int, total_images: int) -> float:
    """Return the learning rate after ``images`` of ``total_images``.

    It is the cosine, times images / warmup_images early on.
    """
    rate = cosine(settings.learning_rate, settings.learning_rate_final, images, total_images)
    return rate * images / settings.warmup_images if images < settings.warmup_images else rate


def beta2_at(settings: OptimiserSettings, images: int, total_images: int) -> float:
    """Return Adam's beta2 after ``images`` of ``total_images``."""
    return cosine(settings.beta2, settings.beta2_final, images, total_images)


def teacher_forced_count(settings: TeacherForcingSettings, images: int, total_images: int, batch: int) -> int:
    """Return how many of the ``batch`` samples of this step are conditioned on real bands, 0 to ``batch``.

    A rounded count, not a coin per sample: a replayed step, and every band of it, must agree on it.
    """
    return round(cosine(settings.start, settings.end, images, total_images) * batch)
