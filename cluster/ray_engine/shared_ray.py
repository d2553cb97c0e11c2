"""A Ray that the processes of several components train on at the same time."""

from __future__ import annotations

from types import TracebackType

import ray

from cluster.planning.cost_model import counted_work, estimated
from cluster.planning.placement import devices_of, place
from cluster.ray_engine.address import VARIABLE, given_address
from cluster.ray_engine.connection import connect, head_answers
from cluster.ray_engine.nodes import gpus_are_wanted, usable_nodes
from cluster.run.settings import RunSettings
from cluster.stages.replicas import replicas_of


class SharedRay:
    """Joined, or started on this machine, from :meth:`__enter__` to :meth:`__exit__`.

    Args:
        settings: of the whole run.
        address: of a running cluster; None starts one here, on loopback.

    Attributes:
        is_own: whether it is started here.
        starts: how often it was joined or started.

    """

    def __init__(self, settings: RunSettings, address: str | None) -> None:
        self.settings, self.given = settings, address
        self.is_own = given_address(address) is None
        self.starts = 0

    def __enter__(self) -> SharedRay:
        """Join it; errors as of :func:`cluster.ray_engine.connection.connect`."""
        self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    def restart(self) -> None:
        """Start a Ray of this process anew."""
        ray.shutdown()
        self._connect()

    def _connect(self) -> None:
        connect(self.settings, self.given)
        self.starts += 1

    def answers(self) -> bool:
        """Return whether its head can be reached, and has a machine."""
        return ray.is_initialized() and head_answers() and bool(usable_nodes())

    def environment(self) -> dict[str, str]:
        """Return the variables by which another process on this machine joins it."""
        return {VARIABLE: ray.get_runtime_context().gcs_address}

    def capacity(self) -> int:
        """Return how many stages can train at full speed at a time: one per GPU, or per ``threads`` cores."""
        use_gpus, nodes = gpus_are_wanted(self.settings), usable_nodes()
        count = len(devices_of(nodes, use_gpus))
        return max(1, count if use_gpus else count // self.settings.threads)

    def work(self) -> dict[str, float]:
        """Return the multiply-accumulates of every stage for one image."""
        return {name: work.multiply_accumulates for name, work in counted_work(self.settings).items()}

    def machines(self) -> dict[str, str]:
        """Return the address of a machine for every stage, so that all are done as early as can be.

        Nothing where there is one machine only.
        """
        nodes = usable_nodes()
        if len(nodes) < 2:
            return {}
        work = counted_work(self.settings)
        slots = place(
            lambda kind: estimated(self.settings, work, kind),
            nodes,
            self.settings.batch,
            use_gpus=gpus_are_wanted(self.settings),
            replicas=replicas_of(self.settings),
            machines=self.settings.machines,
        )
        return {name: slots[group[0].name].address for name, group in replicas_of(self.settings).items()}
