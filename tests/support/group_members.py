"""Processes of a group of replicas. They import what a group needs and nothing else, since each pays for all of it."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cluster.stages.process_group import FormedGroup, GroupBrokenError, ReplicaGroup


def _member(index: int, count: int, inbox: Any, outbox: Any) -> None:
    """A process that does what it is told with its place in a group."""
    torch.set_num_threads(1)
    group = ReplicaGroup(index, count, torch.device("cpu"), timeout_s=4.0)
    outbox.put(("ready", None))
    while (order := inbox.get()) is not None:
        name, *arguments = order
        try:
            outbox.put(
                (name, _mean_of_rows(group, *arguments) if name == "mean_of_rows" else getattr(group, name)(*arguments))
            )
        except GroupBrokenError as error:
            outbox.put((name, error))
    group.leave()


def _mean_of_rows(group: ReplicaGroup, numbers: Tensor) -> Tensor:
    """The mean of ``numbers``, of which this process has as many as any other, or one more."""
    formed = FormedGroup(group.index, group.count, group.device, len(numbers))
    (mean,) = formed.mean([numbers[formed.rows(len(numbers))].mean()])
    return mean


class Members:
    """Processes of a group, which are told what to do by the names of its methods."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.context = mp.get_context("spawn")
        self.processes: list[Any] = [None] * count
        self.inboxes: list[Any] = [None] * count
        self.outboxes: list[Any] = [None] * count
        for index in range(count):
            self.start(index)
        for index in range(count):
            self.outboxes[index].get(timeout=120)  # to import torch takes longer than a group waits for anybody

    def start(self, index: int) -> None:
        self.inboxes[index], self.outboxes[index] = self.context.Queue(), self.context.Queue()
        arguments = (index, self.count, self.inboxes[index], self.outboxes[index])
        self.processes[index] = self.context.Process(target=_member, args=arguments, daemon=True)
        self.processes[index].start()

    def form(self, generation: int) -> list[Any]:
        self.inboxes[0].put(("open_store", "127.0.0.1", generation))
        _, meeting = self.outboxes[0].get(timeout=60)
        return self.all("join", lambda _: (meeting,))

    def all(self, name: str, arguments: Callable[[int], tuple[Any, ...]], but: int = -1) -> list[Any]:
        others = [index for index in range(self.count) if index != but]
        for index in others:
            self.inboxes[index].put((name, *arguments(index)))
        return [self.outboxes[index].get(timeout=60)[1] for index in others]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
