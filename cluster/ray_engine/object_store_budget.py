"""How much of the last steps is kept for replays, so that the object store holds it."""

from __future__ import annotations

from cluster.execution.executor import feedback_lag
from cluster.planning.traffic import exchanged_bytes
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from freqgan.sizes import area

MIB = 2**20
LABEL_BYTES = 8
NUMBER_BYTES = 4
"""Of a packed target."""


def step_bytes(settings: RunSettings) -> float:
    """Return the bytes that a step leaves in the object store: images, targets, sub-images of all passes, feedback."""
    layout = settings.target_layout
    target = NUMBER_BYTES * layout.width if layout.packed else LABEL_BYTES
    image = settings.image_channels * area(settings.size) * settings.bit_depth // 8 + target
    return settings.batch * (image + exchanged_bytes(settings))


def kept_steps_count(settings: RunSettings) -> int:
    """Return the most steps whose references are held: in flight, awaiting feedback, since the last two snapshots."""
    return settings.window + feedback_lag(settings) + 2 * settings.snapshot_every + 2


def fit_to_object_store(settings: RunSettings) -> RunSettings:
    """Return ``settings`` with snapshots as often, and as few steps in flight, as ``object_store_mib`` asks for.

    Raises:
        InputError: not even single steps fit.

    """
    room = settings.object_store_mib * MIB
    per_step = step_bytes(settings)
    for window in range(settings.window, 0, -1):
        for snapshot_every in range(settings.snapshot_every, 0, -1):
            tried = settings.model_copy(update={"window": window, "snapshot_every": snapshot_every})
            if kept_steps_count(tried) * per_step <= room:
                return tried
    least = kept_steps_count(settings.model_copy(update={"window": 1, "snapshot_every": 1})) * per_step
    raise InputError(
        f"object_store_mib: {settings.object_store_mib} MiB do not hold the steps that a replay needs, at least "
        f"{least / MIB:.0f} MiB ({per_step / MIB:.1f} MiB each): give more, or take a smaller batch or feedback.lag"
    )
