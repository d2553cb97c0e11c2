"""Every random draw of a run is a pure function of (run seed, purpose, band, step).

No generator object outlives a call, so a step can be replayed on any machine, in any order, and
a checkpoint holds no random state. torch is imported when it is needed: readers of shards take seeds and no torch.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_global_generator = threading.RLock()
"""Pictures of a checkpoint are drawn in a thread beside the training, and both start networks."""


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed from ``parts``; different parts (or another order of them) give unrelated seeds.

    The parts are hashed with BLAKE2b over their type, length and text, so that ("a", "bc") and
    ("ab", "c"), or 1 and "1", differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        digest.update(f"{type(part).__name__}:{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a fresh CPU generator seeded by :func:`derive_seed`; draw on the CPU, then move the tensor.

    Drawing on the CPU keeps the values the same on every device.
    """
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator by ``parts`` in this context, and restore it afterwards.

    For the start of networks, whose initialisers draw from the global generator. One thread at a time is in it.
    """
    import torch

    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts))
        yield
