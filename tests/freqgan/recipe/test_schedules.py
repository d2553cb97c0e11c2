"""Schedules as functions of the images seen."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from freqgan.recipe.schedules import beta2_at, cosine, learning_rate_at, teacher_forced_count
from freqgan.recipe.settings import OptimiserSettings, TeacherForcingSettings

TOTAL = 1_000_000
RATES = OptimiserSettings(learning_rate=2e-4, learning_rate_final=5e-5, beta2=0.9, beta2_final=0.99)


def test_cosine_meets_both_ends_exactly_and_stays_there() -> None:
    assert cosine(2e-4, 5e-5, 0, TOTAL) == 2e-4
    assert cosine(2e-4, 5e-5, TOTAL, TOTAL) == 5e-5
    assert cosine(2e-4, 5e-5, 10 * TOTAL, TOTAL) == 5e-5
    assert cosine(2e-4, 5e-5, -1, TOTAL) == 2e-4


def test_cosine_between_its_ends() -> None:
    assert cosine(1.0, 0.0, TOTAL // 2, TOTAL) == pytest.approx(0.5)
    assert cosine(1.0, 0.0, TOTAL // 4, TOTAL) == pytest.approx((1 + 0.5**0.5) / 2)
    assert cosine(0.0, 1.0, TOTAL * 2 // 3, TOTAL) == pytest.approx(0.75, abs=1e-6)
    falling = [cosine(1.0, 0.2, images, 50) for images in range(51)]
    assert falling == sorted(falling, reverse=True)


def test_a_schedule_over_no_images_has_ended() -> None:
    assert cosine(1.0, 0.5, 0, 0) == 0.5


def test_learning_rate_warms_up_linearly_then_follows_the_cosine() -> None:
    settings = RATES.model_copy(update={"warmup_images": 1000})
    assert learning_rate_at(settings, 0, TOTAL) == 0.0
    assert learning_rate_at(settings, 500, TOTAL) == pytest.approx(1e-4, rel=1e-4)
    assert learning_rate_at(settings, 1000, TOTAL) == cosine(2e-4, 5e-5, 1000, TOTAL)
    assert learning_rate_at(settings, TOTAL, TOTAL) == 5e-5


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_at(RATES, 0, TOTAL) == 2e-4


def test_beta2_runs_between_its_ends() -> None:
    settings = RATES
    assert [beta2_at(settings, images, TOTAL) for images in (0, TOTAL)] == [0.9, 0.99]
    assert beta2_at(settings, TOTAL // 2, TOTAL) == pytest.approx(0.945)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_teacher_forced_count_falls_from_start_to_end(batch: int) -> None:
    settings = TeacherForcingSettings(start=1.0, end=0.25)
    counts = [teacher_forced_count(settings, images, 40, batch) for images in range(60)]
    assert counts[0] == batch
    assert counts[-1] == round(0.25 * batch)
    assert counts == sorted(counts, reverse=True)
    assert all(isinstance(count, int) and 0 <= count <= batch for count in counts)


def test_teacher_forcing_may_be_all_or_none() -> None:
    assert teacher_forced_count(TeacherForcingSettings(start=1, end=1), 77, 100, 64) == 64
    assert teacher_forced_count(TeacherForcingSettings(start=0, end=0), 77, 100, 64) == 0


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (OptimiserSettings, {"learning_rate": 0}),
        (OptimiserSettings, {"beta2": 1.0}),
        (OptimiserSettings, {"warmup_images": -1}),
        (OptimiserSettings, {"momentum": 0.9}),
        (TeacherForcingSettings, {"start": 1.5}),
        (TeacherForcingSettings, {"end": -0.1}),
        (TeacherForcingSettings, {"noise": -0.3}),
    ],
)
def test_settings_refuse_what_means_nothing(settings: type[BaseModel], wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        settings.model_validate(wrong)
