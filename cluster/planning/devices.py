"""The devices that a plan is made for: from a description such as ``4xH100,2xT4``, or those of this machine.

Speeds are those of the data sheets, dense, and serve to compare types; how fast a type really is on these networks is
measured (:mod:`cluster.planning.cost_model`) where one is at hand.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from freqgan.errors import InputError, nearest

GIB = 2**30
CPU = "CPU"
LARGEST_INVENTORY = 65_536


@dataclass(frozen=True)
class Accelerator:
    """A type of processor under the name that Ray gives it.

    Attributes:
        name: such as H100.
        float32: 10^12 multiply-adds a second, times two, of a dense convolution, on tensor cores in TF32 if it has any.
        bfloat16: the same in bfloat16.
        memory_bytes: of one device.

    """

    name: str
    float32: float
    bfloat16: float
    memory_bytes: int


def _accelerator(name: str, float32: float, bfloat16: float, memory_gib: float) -> Accelerator:
    return Accelerator(name, float32, bfloat16, int(memory_gib * GIB))


ACCELERATORS = {
    a.name: a
    for a in (
        _accelerator("B200", 1100, 2250, 180),
        _accelerator("H200", 495, 989, 141),
        _accelerator("H100", 495, 989, 80),
        _accelerator("H20", 74, 148, 96),
        _accelerator("A100", 156, 312, 40),
        _accelerator("A100-80G", 156, 312, 80),
        _accelerator("L40S", 183, 362, 48),
        _accelerator("L4", 60, 121, 24),
        _accelerator("A10G", 35, 70, 24),
        _accelerator("V100", 15.7, 15.7, 16),  # its tensor cores know float16 only
        _accelerator("T4", 8.1, 8.1, 16),  # likewise
        _accelerator("P100", 9.3, 9.3, 16),
        _accelerator("P4", 5.5, 5.5, 8),
        _accelerator("K80", 4.1, 4.1, 12),
        _accelerator(CPU, 0.1, 0.1, 4),  # one core with 256-bit vectors, and its share of the machine's memory
    )
}
"""Numbers of NVIDIA's data sheets, without sparsity."""


@dataclass(frozen=True)
class Device:
    """One GPU, or one core: what a stage's replica runs on.

    ``speed`` is relative to the device that the stages' costs were measured or estimated on.
    """

    node: str
    index: int
    accelerator: str
    speed: float
    memory_bytes: int
    spot: bool = False

    @property
    def name(self) -> str:
        """A name such as "n2/H100.0"."""
        return f"{self.node}/{self.accelerator}.{self.index}"


NODE = re.compile(r"(?:(?P<nodes>\d+)\*)?(?P<count>\d+)x(?P<type>[A-Za-z][A-Za-z0-9-]*)(?P<spot>:spot)?")


def parse_nodes(description: str) -> list[Device]:
    """Return the devices of ``4xH100,2xT4:spot,16*8xA100``: a node with 4 H100, a spot node with 2 T4, 16 with 8 A100.

    Speeds are all 1 here: see :func:`with_speeds`.

    Raises:
        InputError: the text is none of that, or names a type that is not in :data:`ACCELERATORS`.

    """
    devices: list[Device] = []
    number = 0
    for part in filter(None, (part.strip() for part in description.split(","))):
        match = NODE.fullmatch(part)
        if match is None:
            raise InputError(
                f"nodes: {part!r} is not a description of nodes; write COUNTxTYPE for one node, N*COUNTxTYPE for N of "
                "them, with :spot behind it where they may be taken away, such as 4xH100,2xT4:spot"
            )
        kind = _accelerator_called(match["type"])
        nodes, count = int(match["nodes"] or 1), int(match["count"])
        if len(devices) + nodes * count > LARGEST_INVENTORY:
            raise InputError(f"nodes: {part!r} makes more than {LARGEST_INVENTORY} devices; give fewer")
        for _ in range(nodes):
            number += 1
            devices += [
                Device(f"n{number}", index, kind.name, 1.0, kind.memory_bytes, spot=bool(match["spot"]))
                for index in range(count)
            ]
    if not devices:
        raise InputError(f"nodes: {description!r} describes no device; write for example 4xH100,2xT4")
    return devices


def _accelerator_called(name: str) -> Accelerator:
    by_name = {key.lower(): accelerator for key, accelerator in ACCELERATORS.items()}
    if name.lower() not in by_name:
        names = list(ACCELERATORS)
        near = nearest(name, names)
        raise InputError(f"nodes: no accelerator is called {name!r}{near}; there are {', '.join(names)}")
    return by_name[name.lower()]


def own_devices(wanted: str) -> list[Device]:
    """Return the GPUs of this machine, or its cores where it has none or ``wanted`` (a ``device`` setting) is cpu."""
    import torch  # only here: a description needs none of it

    count = 0 if wanted == "cpu" else torch.cuda.device_count()
    if not count:
        return [Device("here", index, CPU, 1.0, ACCELERATORS[CPU].memory_bytes) for index in range(own_cores())]
    return [
        Device("here", index, accelerator_of(torch.cuda.get_device_name(index)), 1.0, memory_bytes)
        for index in range(count)
        for memory_bytes in [torch.cuda.get_device_properties(index).total_memory]
    ]


def own_cores() -> int:
    """Return how many cores of this machine this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator_of(hardware: str) -> str:
    """Return the type of a GPU by the name its driver gives it: the longest that fits, H100 where none does."""
    upper = hardware.upper().replace(" ", "-")
    fitting = [name for name in ACCELERATORS if name != CPU and name.upper() in upper]
    return max(fitting, key=len, default="H100")
