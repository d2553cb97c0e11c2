"""What a network sees of all images, computed by tasks of a Ray cluster, one for every shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import ray

from cluster.evaluation.image_features import FeatureJob, Numbers, pooled_shard
from cluster.ray_engine.connection import connect
from cluster.ray_engine.results import translate_errors
from cluster.run.settings import RunSettings

RETRIES = 3
"""Of a task whose machine is lost."""


def pooled_by_tasks(job: FeatureJob, settings: RunSettings, address: str | None) -> Iterator[Numbers]:
    """Yield what the network sees of the images of every shard (samples, n), in order.

    Args:
        job: which images, and which network.
        settings: of the run, for which the cluster is used afterwards.
        address: of the cluster; None starts one here, and ends it at the end.

    Raises:
        RunError: the cluster cannot be used, or a task failed.

    """
    starts_ray = connect(settings, address)
    try:
        task = ray.remote(pooled_shard).options(num_cpus=1, max_retries=RETRIES)
        most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending = deque[Any]()
        for shard in job.index.shards:
            pending.append(task.remote(job.of_shard(shard)))
            if len(pending) == most:
                yield _result(pending)
        while pending:
            yield _result(pending)
    finally:
        if starts_ray:
            ray.shutdown()


def _result(pending: deque[Any]) -> Numbers:
    numbers: Numbers = translate_errors(lambda: ray.get(pending.popleft()))
    return numbers
