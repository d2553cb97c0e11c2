"""The replicas of one stage as a torch.distributed group of their own, formed anew whenever one of them is lost.

Every generation of a group has a store of its own, in the process of its first replica: what is left of a broken
generation cannot disturb the next one.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from freqgan.errors import InputError, RunError, first_line
from freqgan.runtime.data_parallel import ReplicaContext

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class GroupBrokenError(RunError):
    """A replica could not reach the others: one of them died, or has hung for longer than the group's timeout."""


class Meeting(NamedTuple):
    """Where a generation of a group meets: the store's address, and the number of the generation."""

    host: str
    port: int
    generation: int


class ReplicaGroup(ReplicaContext):
    """One replica's place among ``count``.

    Args:
        index: of this replica; the one of index 0 holds the store.
        count: of replicas.
        device: that the tensors are on: NCCL for a GPU, gloo for a CPU.
        timeout_s: how long one call waits for a replica that does not come.

    """

    def __init__(self, index: int, count: int, device: torch.device, timeout_s: float) -> None:
        super().__init__(index, count)
        self.backend = "nccl" if device.type == "cuda" else "gloo"
        self.device, self.timeout = device, timedelta(seconds=timeout_s)
        self._store: Any = None
        self._generation = 0
        self._joined = False

    @property
    def is_whole(self) -> bool:
        """Whether it has been formed and nothing has gone wrong since."""
        return self._joined

    def open_store(self, host: str, generation: int) -> Meeting:
        """Open a store, at the first replica, that listens on ``host`` alone, for one generation."""
        self.leave()
        server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        port = int(server.getsockname()[1])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]  # torch does not list it as public
            host,
            port,
            self.count,
            is_master=True,
            timeout=self.timeout,
            wait_for_workers=False,
            master_listen_fd=server.detach(),
        )
        self._generation = generation
        return Meeting(host, port, generation)

    def join(self, meeting: Meeting) -> None:
        """Form the group with the others; wait for all of them.

        The network interface is the one that the host's name resolves to, unless GLOO_SOCKET_IFNAME or
        NCCL_SOCKET_IFNAME names another; groups that meet on loopback stay there.

        Args:
            meeting: what the first replica's :meth:`open_store` gave.

        Raises:
            GroupBrokenError: not all of them came in time.

        """
        if self._joined or self._generation != meeting.generation:
            self.leave()
        if ipaddress.ip_address(meeting.host).is_loopback:
            for variable in INTERFACE_VARIABLES:
                os.environ.setdefault(variable, loopback_interface())
        try:
            if self._store is None:
                self._store = dist.TCPStore(  # type: ignore[attr-defined]
                    meeting.host, meeting.port, self.count, is_master=False, timeout=self.timeout
                )
            self._generation = meeting.generation
            dist.init_process_group(
                self.backend,
                store=self._store,
                rank=self.index,
                world_size=self.count,
                timeout=self.timeout,
            )
            self._joined = True
            self.mean([torch.zeros(1, device=self.device)])  # connections are made at the first call
        except (RuntimeError, ValueError) as error:
            self.leave()
            raise _broken(error) from error

    def leave(self) -> None:
        """Give up the present generation, if there is one."""
        if dist.is_initialized():
            dist.destroy_process_group()
        self._store, self._joined = None, False

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over all replicas of ``tensors`` (...); one call of the network for all of one type.

        Raises:
            GroupBrokenError: from now on, until the group is formed anew.

        """
        means: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            chosen = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[i].detach().to(self.device).reshape(-1) for i in chosen])
            self._all_reduce(flat)
            flat /= self.count
            for i, part in zip(chosen, torch.split(flat, [tensors[i].numel() for i in chosen]), strict=True):
                means[i] = part.view(tensors[i].shape).to(tensors[i].device)
        return [means[i] for i in range(len(tensors))]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor (...) of every replica, in their order; all are of one shape."""
        mine = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        self._check_joined()
        try:
            dist.all_gather(parts, mine)
        except RuntimeError as error:
            self.leave()
            raise _broken(error) from error
        return [part.to(tensor.device) for part in parts]

    def _all_reduce(self, flat: Tensor) -> None:
        self._check_joined()
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            self.leave()
            raise _broken(error) from error

    def _check_joined(self) -> None:
        if not self._joined:
            raise GroupBrokenError("the group of replicas is broken and was not formed anew yet")


class FormedGroup(ReplicaGroup):
    """One worker's place among ``count`` in a group that somebody else has formed, and ends.

    Parts of a batch are as equal as can be, so that there may be any number of workers up to the rows of a batch; a
    mean over the workers counts each by its rows.

    Args:
        index: of this worker.
        count: of workers.
        device: that the tensors are on.
        batch: rows of a batch.

    Raises:
        InputError: there are more workers than rows.

    """

    def __init__(self, index: int, count: int, device: torch.device, batch: int) -> None:
        super().__init__(index, count, device, timeout_s=0)
        if count > batch:
            raise InputError(f"workers.max: {count} workers and a batch of {batch} images: give at most {batch}")
        rows = self.rows(batch)
        self._weight = (rows.stop - rows.start) * count / batch
        self._joined = dist.is_initialized()

    def rows(self, batch: int) -> slice:
        """Return this worker's rows of a batch of ``batch`` rows: one more for some workers where it is no multiple."""
        return slice(self.index * batch // self.count, (self.index + 1) * batch // self.count)

    def leave(self) -> None:
        """Use the group no more; it is not this object's to end."""
        self._joined = False

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over all rows of a batch, where ``tensors`` (...) are means over this worker's own."""
        return super().mean([tensor * self._weight for tensor in tensors])


def _broken(error: Exception) -> GroupBrokenError:
    return GroupBrokenError(f"a replica could not reach the others: {first_line(error)}")


def loopback_interface() -> str:
    """Return the name of the loopback interface: lo on Linux, lo0 on macOS."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
