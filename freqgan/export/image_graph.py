"""A model as one function of tensors, numbers and targets -> pixels, for runtimes that know no seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from freqgan.bands import Band
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError
from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.model.clips import apart
from freqgan.model.noise import orthogonal_noises, split_mask
from freqgan.pixels import to_pixels, to_values
from freqgan.sizes import area

NOISE = "noise"
MEMBERS = "members"
COLUMNS = {"label": "label", "vector": "embedding", "features": "features", "caption": "caption"}
"""The part of a target that an input is; nodes of a graph may be called "embedding", and two of one name are none."""
PASSES = 2
"""Times that vectors are made orthogonal: the error of one pass grows with how near they are to dependent."""


class GraphInput(NamedTuple):
    """One input of the graph.

    Attributes:
        name: of the argument.
        length: numbers for each image; 0 for one number, of shape (B,).
        dtype: of the tensor.
        description: what a caller puts there.

    """

    name: str
    length: int
    dtype: torch.dtype
    description: str

    def zeros(self, batch: int) -> Tensor:
        """Return zeros (B,), or (B, length), for B = ``batch``."""
        return torch.zeros((batch, self.length) if self.length else (batch,), dtype=self.dtype)


class ImageGraph(nn.Module):
    """(noise, parts of the target ...) -> pixels (B, N, N, C), of clips (B, T, N, N, C), uint8, uint16 or float32.

    float32 are values of the model's range.

    ``noise`` (B, K) is normal. Its first numbers become the experts' vectors, pairwise orthogonal by Gram and Schmidt
    with their lengths kept, so that vectors which are orthogonal stay what they are; the rest are those that flow
    experts and companions need beside them. So numbers drawn at random make images as a seed does, and the numbers of
    a seed make its images.

    Args:
        model: to be run, with the settings of generation that it has.

    Raises:
        InputError: the model's images need random numbers that cannot be an input.

    """

    def __init__(self, model: Synthesiser) -> None:
        super().__init__()
        settings = model.settings
        if settings.generation.condition_noise:
            raise InputError(
                f"generation.condition_noise is {settings.generation.condition_noise:g}, and a graph draws no noise on "
                "conditions: export with --condition-noise 0"
            )
        if settings.image_stage.enabled and settings.image_stage.companion == "autoregressive":
            raise InputError(
                f"the companion makes an image pixel by pixel, in {area(settings.size):,} passes, and a graph of so "
                "many is too long: it can be exported without --onnx and --program"
            )
        self.model = model
        self.mode = settings.noise.generation
        self.experts, self.dimensions = settings.noise_count, settings.noise.dimensions
        example = model.block_draws(0, 0)
        self.rest_names = list(example.rests)
        self.rests = {name: rest.shape[1] for name, rest in example.rests.items() if rest.shape[1]}
        self.vectors = self.dimensions if self.mode in ("hurwitz", "split") else self.experts * self.dimensions
        self.ensembles = list(example.choices)
        self.inputs = [GraphInput(NOISE, self.length, torch.float32, "normal numbers"), *self._other_inputs()]

    @property
    def length(self) -> int:
        """Numbers in the noise of an image."""
        return self.vectors + sum(self.rests.values())

    def _other_inputs(self) -> Iterator[GraphInput]:
        layout = self.model.settings.target_layout
        if layout.classes:
            yield GraphInput("label", 0, torch.int64, f"number of the class, below {layout.classes}")
        if layout.packed:
            if layout.embedding:
                yield GraphInput("vector", layout.embedding, torch.float32, "as beside the training images")
            if layout.features:
                yield GraphInput("features", layout.features, torch.float32, "normal numbers, or those of an image")
            if layout.caption:
                yield GraphInput("caption", layout.caption, torch.uint8, "UTF-8 bytes, zeros behind them")
        if self.ensembles:
            counts = ", ".join(f"{band}: {len(self.model.chain.plan.members(band))}" for band in self.ensembles)
            yield GraphInput(MEMBERS, len(self.ensembles), torch.int64, f"which member makes a band, of {counts}")

    def forward(self, noise: Tensor, *others: Tensor) -> Tensor:
        """Return the pixels of ``noise`` (B, K) and the further :attr:`inputs`, in their order, as stated above."""
        parts = dict(zip([each.name for each in self.inputs[1:]], others, strict=True))
        targets = self._targets(parts, noise.shape[0])
        images = self.model.draw(Draws(self._noises(noise), targets, self._choices(parts), self._rests(noise))).images
        return self._pixels(images)

    def _pixels(self, images: Tensor) -> Tensor:
        """Return images (B, T C, N, N) in [-1, 1] as pixels."""
        settings = self.model.settings
        pixels = to_pixels(images, settings.bit_depth)
        if settings.bit_depth == FLOAT_BITS:
            pixels = to_values(pixels, settings.value_ends)
        if settings.frames == 1:
            return pixels.permute(0, 2, 3, 1).contiguous()
        return apart(pixels, settings.frames).permute(0, 1, 3, 4, 2).contiguous()

    def _noises(self, noise: Tensor) -> Tensor:
        """Return the experts' vectors (experts, B, n)."""
        vectors = noise[:, : self.vectors]
        if self.mode == "hurwitz":
            return orthogonal_noises(vectors, self.experts)
        if self.mode == "split":
            return vectors * split_mask(self.dimensions, self.experts)[:, None]
        rows = vectors.view(-1, self.experts, self.dimensions)
        return (orthogonalised(rows) if self.mode == "haar" else rows).transpose(0, 1)

    def _rests(self, noise: Tensor) -> dict[str, Tensor]:
        parts = torch.split(noise[:, self.vectors :], list(self.rests.values()), dim=1) if self.rests else []
        named = dict(zip(self.rests, parts, strict=True))
        return {name: named.get(name, noise[:, :0]) for name in self.rest_names}

    def _choices(self, parts: Mapping[str, Tensor]) -> dict[Band, Tensor]:
        return {band: parts[MEMBERS][:, column] for column, band in enumerate(self.ensembles)}

    def _targets(self, parts: Mapping[str, Tensor], batch: int) -> Tensor | None:
        layout = self.model.settings.target_layout
        if not layout:
            return None
        if not layout.packed:
            return parts["label"]
        columns = {COLUMNS[name]: x.float().reshape(batch, -1) for name, x in parts.items() if name in COLUMNS}
        ordered = [columns[name] for name in layout.columns if name in columns]
        rows = torch.cat([*ordered, ordered[0].new_ones(batch, 1)], dim=1)
        return self.model.chain.normalised_targets(rows)

    def arguments(self, draws: Draws, targets: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the arguments of :meth:`forward` that give the images of ``draws``.

        Args:
            draws: of B samples.
            targets: (B,) labels or packed (B, K) as the shards have them; for a model with targets.

        """
        noises = draws.noises
        vectors = noises.sum(0) if self.mode == "split" else noises.transpose(0, 1).flatten(1)[:, : self.vectors]
        noise = torch.cat([vectors, *(draws.rests[name] for name in self.rests)], dim=1)
        values: list[Tensor] = [noise]
        columns = self.model.settings.target_layout.columns if self.model.settings.target_layout.packed else {}
        for each in self.inputs[1:]:
            if each.name == MEMBERS:
                value = torch.stack([draws.choices[band] for band in self.ensembles], dim=1)
            elif targets is None:
                raise InputError(f"the model is shown a target: give targets for {each.name}")
            else:
                value = targets if not columns else targets[:, columns[COLUMNS[each.name]]]
                value = value if each.length else value.flatten()
            values.append(value.to(each.dtype))
        return tuple(values)


def orthogonalised(rows: Tensor) -> Tensor:
    """Return vectors ``rows`` (B, m, n), made orthogonal one after the other, each as long as it was.

    Noise of a seed comes from a Cholesky factor, which runtimes do not have.
    """
    lengths = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
    units: list[Tensor] = []
    for number in range(rows.shape[1]):
        row = rows[:, number : number + 1]
        for _ in range(PASSES):
            for unit in units:
                row = row - (row * unit).sum(2, keepdim=True) * unit
        units.append(row / torch.linalg.vector_norm(row, dim=2, keepdim=True))
    joined: Tensor = torch.cat(units, dim=1) * lengths
    return joined
