"""A small classifier that learns on real images what generated ones are asked to show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64
WIDTH = 48


class Classifier(nn.Module):
    """Residual blocks on halved grids, their mean, and a linear head for each question, of so many answers."""

    def __init__(self, channels: int, side: int, answers: Sequence[int], width: int = WIDTH) -> None:
        super().__init__()
        stages = 2 if side <= 16 else 3
        widths = [width * 2**i for i in range(stages)]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths)
        self.second = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths)
        self.norms = nn.ModuleList(nn.GroupNorm(8, w) for w in widths)
        self.grow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:] + widths[-1:], strict=True))
        cells = -(-side // 2**stages)
        self.heads = nn.ModuleList(nn.Linear(widths[-1] * cells**2, count) for count in answers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, answers) of every question, for images (B, C, h, w) in [-1, 1]."""
        x = self.stem(images)
        for first, second, norm, grow in zip(self.first, self.second, self.norms, self.grow, strict=True):
            x = x + second(functional.relu(first(functional.relu(norm(x)))))
            x = functional.avg_pool2d(grow(x), 2, ceil_mode=True)
        features = functional.dropout(functional.relu(x).flatten(1), 0.3, self.training)
        return [head(features) for head in self.heads]


def train_classifier(
    images: Tensor, answers: Tensor, counts: Sequence[int], *, steps: int, width: int = WIDTH
) -> Classifier:
    """A classifier of images (N, C, h, w) in [-1, 1] with the answers (N, questions)."""
    torch.manual_seed(0)
    network = Classifier(images.shape[1], images.shape[-1], counts, width)
    adam = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, total_steps=steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=rng)
        logits = network(images[rows])
        loss = sum(functional.cross_entropy(x, answers[rows, i]) for i, x in enumerate(logits))
        adam.zero_grad()
        assert isinstance(loss, Tensor)
        loss.backward()
        adam.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def right(network: Classifier, images: Tensor, answers: Tensor) -> list[float]:
    """The share of images (N, C, h, w) in [-1, 1] for which each question is answered as ``answers`` (N, questions)."""
    logits = [network(part.clamp(-1, 1)) for part in images.split(500)]
    given = torch.stack([torch.cat(parts).argmax(1) for parts in zip(*logits, strict=True)], dim=1)
    return (given == answers).float().mean(0).tolist()
