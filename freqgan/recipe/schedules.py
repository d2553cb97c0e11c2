"""What changes during training, each as a function of the images seen.

Progress is counted in images, never in steps or epochs, so the batch size and the cluster may
change between two runs of one training without moving a schedule.
"""

from __future__ import annotations

import math

from pydantic import Field

from freqgan.setting_group import SettingGroup


class OptimiserSettings(SettingGroup):
    """Adam with beta1 = 0; the learning rate and beta2 go by a half cosine from first to final value."""

    learning_rate: float = Field(
        default=8e-3, gt=0, description="Adam's learning rate (lr) at the start, relative to each layer's weights."
    )
    learning_rate_final: float = Field(default=1e-3, gt=0, description="Adam's learning rate at the end of training.")
    generator_rate: float = Field(
        default=0.7, gt=0, description="The generators' learning rate over the discriminators'."
    )
    beta2: float = Field(
        default=0.99, ge=0, lt=1, description="Adam's beta2 (memory of squared gradients) at the start."
    )
    beta2_final: float = Field(default=0.99, ge=0, lt=1, description="Adam's beta2 at the end of training.")
    warmup_images: int = Field(
        default=0,
        ge=0,
        description="Over this many images the learning rate first rises linearly from 0; 0 means no warm-up.",
    )


class TeacherForcingSettings(SettingGroup):
    """Which share of a batch is conditioned on real bands, the rest being conditioned on generated ones."""

    start: float = Field(
        default=1.0, ge=0, le=1, description="Share of each batch conditioned on real bands at the start."
    )
    end: float = Field(default=0.5, ge=0, le=1, description="Share of each batch conditioned on real bands at the end.")
    noise: float = Field(
        default=0.3,
        ge=0,
        description="Largest strength of the Gaussian noise on real conditions, in standard deviations of their band.",
    )


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
