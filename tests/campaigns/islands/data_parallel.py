"""Plain data-parallel training with gloo: ``python -m tests.campaigns.islands.data_parallel RANK ADDRESS WEIGHTS``.

Two processes, each with half of a batch, average the gradients of so many weights in every step (PyTorch's
DistributedDataParallel). The first one prints images/s.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

BATCH, PIXELS, WARM_UP, STEPS, PORT = 8, 3 * 16 * 16, 3, 20, 29_500


def main(rank: int, address: str, weights: int) -> None:
    """Train, and print how fast."""
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": "eth0"}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    hidden = max(1, round(weights / (2 * PIXELS + 1)))
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, PIXELS, False))
    )
    optimiser = torch.optim.AdamW(model.parameters())
    began_s = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            began_s = time.monotonic()
        images = torch.rand(BATCH // 2, PIXELS)
        optimiser.zero_grad()
        (model(images) - images).square().mean().backward()
        optimiser.step()
    if rank == 0:
        print(f"{STEPS * BATCH / (time.monotonic() - began_s):.2f}", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
