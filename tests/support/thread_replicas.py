"""Replicas of a stage as threads of one process that wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from freqgan.runtime.data_parallel import ReplicaContext


class ThreadShare(ReplicaContext):
    """The place of one thread among ``count``."""

    def __init__(self, index: int, count: int, board: list[Sequence[Tensor]], barrier: threading.Barrier) -> None:
        super().__init__(index, count)
        self.board, self.barrier = board, barrier

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.board[self.index] = tensors
        self.barrier.wait(60)
        means = [torch.stack(list(same)).mean(0) for same in zip(*self.board, strict=True)]
        self.barrier.wait(60)
        return means


def thread_shares(count: int) -> list[ReplicaContext]:
    """The places of ``count`` replicas; of a single one, that of a stage without any others."""
    board: list[Sequence[Tensor]] = [()] * count
    barrier = threading.Barrier(count)
    return [ThreadShare(i, count, board, barrier) if count > 1 else ReplicaContext() for i in range(count)]


def at_once(actions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What ``actions`` return, each in a thread of its own."""
    with ThreadPoolExecutor(len(actions)) as pool:
        futures = [pool.submit(action) for action in actions]
        return [future.result() for future in futures]
