"""A cable between two network namespaces with a rate and a delay: ``python -m tests.support.slow_cable A B MBIT MS``.

Both ends are TAP devices called eth0; this process carries the packets. (The kernel here has no netem.) A name "-" is
the namespace of this process, where the device is called freqgan-cable.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
MOST_BYTES, QUEUE_S = 65_536, 1.0
HERE, NAME_HERE, NAME = "-", "freqgan-cable", "eth0"


class Direction:
    """Packets on their way from one end to the other: they leave one after the other at the rate, and arrive late.

    What would wait longer than QUEUE_S for its turn is dropped, as by the queue of a modem.
    """

    def __init__(self, source: int, target: int, rate_bits_per_s: float, delay_s: float) -> None:
        self.source, self.target, self.rate, self.delay_s = source, target, rate_bits_per_s, delay_s
        self.free_s = 0.0
        self.under_way: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Take one packet from the source."""
        packet, now_s = os.read(self.source, MOST_BYTES), time.monotonic()
        if self.free_s - now_s < QUEUE_S:
            self.free_s = max(self.free_s, now_s) + 8 * len(packet) / self.rate
            self.under_way.append((self.free_s + self.delay_s, packet))

    def deliver(self) -> float:
        """Give all that are due to the target; the time at which the next one is."""
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            try:
                os.write(self.target, self.under_way.popleft()[1])
            except OSError:  # that end is down: lost
                continue
        return self.under_way[0][0] if self.under_way else float("inf")


def tap(namespace: str) -> int:
    """A new TAP device there, as a file; it is gone when the file is closed."""
    name = NAME_HERE if namespace == HERE else NAME
    with Path("/proc/self/ns/net").open() as own:
        if namespace != HERE:
            _enter(Path("/run/netns", namespace))
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        _enter(Path(f"/proc/self/fd/{own.fileno()}"))
    return device


def _enter(namespace: Path) -> None:
    with namespace.open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def carry(first: int, second: int, rate_bits_per_s: float, delay_s: float) -> None:
    """Carry packets both ways, for ever."""
    ways = {a: Direction(a, b, rate_bits_per_s, delay_s) for a, b in ((first, second), (second, first))}
    while True:
        next_s = min(way.deliver() for way in ways.values())
        wait_s = max(0.0, min(1.0, next_s - time.monotonic()))
        for device in select.select(list(ways), [], [], wait_s)[0]:
            ways[device].take()


if __name__ == "__main__":
    first, second = tap(sys.argv[1]), tap(sys.argv[2])
    print("ready", flush=True)
    carry(first, second, float(sys.argv[3]) * 1e6, float(sys.argv[4]) / 1e3)
