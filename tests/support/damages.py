"""Ways to damage a shard."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut_off(data: bytes, size_bytes: int) -> bytes:
    return data[:size_bytes]


def damages(size_bytes: int, count: int) -> Sequence[tuple[str, Callable[[bytes], bytes]]]:
    """So many random flips of one bit, and so many cuts, anywhere."""
    rng = random.Random(7)
    bits = [rng.randrange(8 * size_bytes) for _ in range(count)]
    cuts = [rng.randrange(size_bytes) for _ in range(count)]
    return [(f"bit {bit}", partial(flipped, bit=bit)) for bit in bits] + [
        (f"cut {cut}", partial(cut_off, size_bytes=cut)) for cut in cuts
    ]
