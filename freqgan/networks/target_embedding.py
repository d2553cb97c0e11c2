"""Features of a target vector: what a generator adds to its style, and a discriminator projects its features on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.networks.blocks import dense
from freqgan.targets import TargetLayout

BYTES = 256
REACH = 5
"""Bytes that one position of a caption sees before attention: a word's beginning, its end, a syllable."""
HEAD_WIDTH = 16
EMBEDDING_DEVIATION = 0.1
"""Deviation of a label's features at the start, beside noise of deviation 1. With 1 the label is most of a style,
and generators gave one image per class. CIFAR-10, 24,000 images: a single GAN's cross-band distance is 345 with 1 and
162 with 0.3; bands with feedback have a sliced Wasserstein distance of 31.6 with 0.3 (lag 4), 28.6 with 0.1 (lag 8)."""


def target_embedding(
    layout: TargetLayout, width: int, *, deviation: float = EMBEDDING_DEVIATION, spare: int = 0
) -> nn.Module | None:
    """Return what makes features (B, ``width``) of targets, of this deviation at the start; None without targets.

    Args:
        layout: of the targets.
        width: of the features.
        deviation: 0 gives features of 0 at the start.
        spare: rows behind those of the classes, for a model with targets alone.

    """
    if layout.packed:
        return TargetEmbedding(layout, width, deviation=deviation)
    return _embedding(layout.classes + spare, width, deviation) if layout.classes else None


def blank_targets(layout: TargetLayout, count: int) -> Tensor:
    """Return ``count`` targets of zeros: targets (count,) int64, or packed rows (count, K) float32, not shown."""
    return torch.zeros(count, layout.width) if layout.packed else torch.zeros(count, dtype=torch.int64)


def hidden_targets(layout: TargetLayout, targets: Tensor, hidden: Tensor) -> Tensor:
    """Return packed ``targets`` (B, K) with those not shown for which ``hidden`` (B,) is true."""
    out = targets.clone()
    out[:, layout.columns["shown"]] *= (~hidden)[:, None]
    return out


def _embedding(count: int, width: int, deviation: float) -> nn.Embedding:
    table = nn.Embedding(count, width)
    if deviation:
        nn.init.normal_(table.weight, std=deviation)
    else:
        nn.init.zeros_(table.weight)
    return table


class TargetEmbedding(nn.Module):
    """The sum of the features of all parts of a target; one learned vector for a target that is not shown."""

    def __init__(self, layout: TargetLayout, width: int, *, deviation: float) -> None:
        super().__init__()
        self.columns = layout.columns
        self.label = _embedding(layout.classes, width, deviation) if layout.classes else None
        self.embedding = dense(layout.embedding, width, gain=deviation) if layout.embedding else None
        self.features = dense(layout.features, width, gain=deviation) if layout.features else None
        self.caption = CaptionEncoder(layout, width, deviation=deviation) if layout.caption else None
        self.none = nn.Parameter(torch.zeros(width))

    def forward(self, targets: Tensor) -> Tensor:
        """Return features (B, width) of packed targets (B, K)."""
        total = torch.zeros(targets.shape[0], len(self.none), device=targets.device)
        if self.label is not None:
            total = total + self.label(targets[:, self.columns["label"]].squeeze(1).long())
        if self.embedding is not None:
            total = total + self.embedding(targets[:, self.columns["embedding"]])
        if self.features is not None:
            total = total + self.features(targets[:, self.columns["features"]])
        if self.caption is not None:
            total = total + self.caption(targets[:, self.columns["caption"]].long())
        shown = targets[:, self.columns["shown"]]
        return shown * total + (1 - shown) * self.none


class CaptionEncoder(nn.Module):
    """Bytes -> features: a convolution over neighbouring bytes, then a transformer (pre-norm), and its mean.

    Zeros stand for no byte; a text without bytes gives the features of its last layer's bias.
    """

    def __init__(self, layout: TargetLayout, width: int, *, deviation: float) -> None:
        super().__init__()
        inner = layout.caption_width
        self.bytes = _embedding(BYTES, inner, 1.0)
        self.places = nn.Parameter(torch.zeros(layout.caption, inner))
        nn.init.normal_(self.places, std=0.1)
        self.words = nn.Conv1d(inner, inner, REACH, padding=REACH // 2)
        self.layers = nn.ModuleList(CaptionLayer(inner) for _ in range(layout.caption_layers))
        self.norm = nn.LayerNorm(inner)
        self.head = dense(inner, width, gain=deviation)

    def forward(self, text: Tensor) -> Tensor:
        """Return features (B, width) of texts (B, T) int64, bytes with zeros behind them."""
        there = (text > 0)[:, :, None].float()
        x = self.bytes(text) * there
        x = functional.gelu(self.words(x.mT).mT) + x + self.places
        for layer in self.layers:
            x = layer(x, there)
        summed = (self.norm(x) * there).sum(1)
        out: Tensor = self.head(summed / there.sum(1).clamp_min(1))
        return out


class CaptionLayer(nn.Module):
    """Attention over the bytes that are there, then two dense layers; both add to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        while width % self.heads:
            self.heads -= 1
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = dense(width, 3 * width)
        self.mix = dense(width, width, gain=0.5)
        self.expand = dense(width, 4 * width)
        self.contract = dense(4 * width, width, gain=0.5)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Return (B, T, width) for x (B, T, width) and ``there`` (B, T, 1), 1 where there is a byte."""
        batch, length, width = x.shape
        parts = self.project(self.first_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        hidden = ((there - 1) * 1e4)[:, None].mT
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=hidden)
        x = x + self.mix(attended.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.contract(functional.gelu(self.expand(self.second_norm(x))))
        return out
