"""What is kept for replays stays within the object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.ray_engine.object_store_budget import MIB, fit_to_object_store, kept_steps_count, step_bytes
from cluster.run.settings import RunSettings
from cluster.training.train import effective_settings
from freqgan.errors import InputError
from tests.support.mixtures import FLOW_BELOW_GAN, FLOWS, SAMPLED
from tests.support.runs import tiny_run_settings


def settings(**changes: object) -> RunSettings:
    return tiny_run_settings("run", Path("data"), image_size=64, batch=64, **changes)


def test_bytes_of_a_step_by_hand() -> None:
    image, band = 3 * 64 * 64 + 8, 3 * 32 * 32
    assert step_bytes(settings()) == 64 * (image + 2 * 4 * 4 * band)  # outputs and feedback of four bands, float32
    assert step_bytes(settings(exchange="float16")) == 64 * (image + 2 * 4 * 2 * band)
    assert step_bytes(settings(feedback={"weight": 0.0})) == 64 * (image + 4 * 4 * band)
    assert step_bytes(settings(plan={"cycles": 3})) == 64 * (image + 4 * 4 * 4 * band)


def test_stages_that_exchange_nothing_leave_batches_alone_and_keep_no_step_for_feedback() -> None:
    image, band = 3 * 64 * 64 + 8, 3 * 32 * 32
    flows = settings(**FLOWS, window=4, snapshot_every=5)
    assert step_bytes(flows) == 64 * image
    assert kept_steps_count(flows) == 4 + 2 * 5 + 2
    assert kept_steps_count(settings(window=4, snapshot_every=5)) == 4 + 2 + 2 * 5 + 2
    assert step_bytes(settings(**FLOW_BELOW_GAN)) == 64 * (image + 2 * 4 * band)  # HL1 and the feedback on it
    assert step_bytes(settings(**SAMPLED)) == 64 * (image + 3 * 4 * band)  # and what is sampled of LL1


def test_what_fits_is_left_alone_and_what_does_not_is_kept_for_less_long() -> None:
    plain = settings(window=16, snapshot_every=10, feedback={"lag": 2})
    assert fit_to_object_store(plain) == plain
    per_step = step_bytes(plain)
    for steps in (30, 20, 10):
        room = -(-int(steps * per_step) // MIB)
        held = fit_to_object_store(plain.model_copy(update={"object_store_mib": room}))
        assert kept_steps_count(held) * per_step <= room * MIB
        assert held.snapshot_every < 10
    assert held.window < 16


def test_a_store_that_is_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"object_store_mib: 1 MiB do not hold .* at least 47 MiB \(6.8 MiB each\)"):
        fit_to_object_store(settings(object_store_mib=1, feedback={"lag": 2}))


def test_only_trainings_with_ray_are_fitted_to_its_object_store() -> None:
    large = settings(window=16, snapshot_every=10, feedback={"lag": 2}, object_store_mib=1, executor="inline")
    assert effective_settings(large) == large
    with pytest.raises(InputError, match="object_store_mib: 1 MiB"):
        effective_settings(large.model_copy(update={"executor": "ray"}))
