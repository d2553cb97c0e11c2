"""VGG19's convolutions (Simonyan & Zisserman 2014, configuration E): what a network that knows real images sees.

The weights are the user's: nothing is shipped, and nothing is fetched. Names of tensors are those of torchvision's
``vgg19``, "features.0.weight" and so on; timm uses the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.errors import InputError, nearest

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions between two pools."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the red, green and blue of ImageNet's photographs in [0, 1], by which the network's input is normalised."""
LEAST_SIDE = 2 ** len(BLOCKS)
"""Pixels: every pool halves the sides."""

Pooling = Literal["max", "average"]


class Layer(NamedTuple):
    """One step of the network: "conv3_1", "relu3_1" or "pool3", and its number among torchvision's ``features``."""

    name: str
    number: int
    channels_in: int
    channels: int

    @property
    def kind(self) -> str:
        """Return "conv", "relu" or "pool"."""
        return self.name[:4]


def _layers() -> Iterator[Layer]:
    number, channels_in = 0, 3
    for block, (channels, convolutions) in enumerate(BLOCKS, 1):
        for convolution in range(1, convolutions + 1):
            yield Layer(f"conv{block}_{convolution}", number, channels_in, channels)
            yield Layer(f"relu{block}_{convolution}", number + 1, channels, channels)
            number, channels_in = number + 2, channels
        yield Layer(f"pool{block}", number, channels, channels)
        number += 1


LAYERS: tuple[Layer, ...] = tuple(_layers())
"""All 37 steps in their order; a convolution is 3 x 3 with padding 1, a pool 2 x 2."""


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight and bias of the convolutions by its name in torchvision's file, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS:
        if layer.kind == "conv":
            shapes[f"features.{layer.number}.weight"] = (layer.channels, layer.channels_in, 3, 3)
            shapes[f"features.{layer.number}.bias"] = (layer.channels,)
    return shapes


class Vgg19(nn.Module):
    """The convolutions of VGG19 with fixed weights.

    Args:
        weights: tensors of :func:`weight_shapes`; others, such as those of the classifier, are ignored.
        pooling: "max" as it was trained, or "average", with which gradients reach every pixel (Gatys et al. 2016).
        source: what the weights are from, for messages.

    Raises:
        InputError: the first tensor that is missing, has another shape, or holds what is no finite number.

    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Mapping[str, Tensor], pooling: Pooling = "max", source: str = "VGG19") -> None:
        super().__init__()
        self.pooling = pooling
        check_weights(weights, source)
        self.weights = nn.ParameterDict()  # a name may have no dots there; and it sorts what it is given at once
        for name in weight_shapes():
            self.weights[_parameter(name)] = nn.Parameter(weights[name].float(), requires_grad=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def features(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the activations (B, channels, h, w) of ``layers`` by their names, from the first to the last.

        Sides h and w are those of the images, halved by every pool before the layer. No layer behind the last that is
        asked for is computed.

        Args:
            images: (B, 3, H, W), or (B, 1, H, W) of grey ones, in [0, 1], at least 32 x 32 pixels.
            layers: such as "conv4_2", its value before the ReLU, "relu4_2", or "pool4".

        Raises:
            InputError: a layer that there is not, images of another shape or too small.

        """
        names = [layer.name for layer in LAYERS]
        for name in layers:
            if name not in names:
                raise InputError(f"VGG19 has no layer {name!r}{nearest(name, names)}; it has {names[0]} to {names[-1]}")
        x, activations = self._normalised(images), dict[str, Tensor]()
        for layer in LAYERS:
            if len(activations) == len(set(layers)):
                break
            x = self._step(layer, x)
            if layer.name in layers:
                activations[layer.name] = x
        return activations

    def _normalised(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < LEAST_SIDE:
            raise InputError(
                f"VGG19 takes images (B, 3, H, W) or (B, 1, H, W) of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, not "
                f"{tuple(images.shape)}"
            )
        normalised: Tensor = (images.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return normalised

    def _step(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.kind == "relu":
            return functional.relu(x)
        if layer.kind == "pool":
            return functional.max_pool2d(x, 2) if self.pooling == "max" else functional.avg_pool2d(x, 2)
        weight, bias = (self.weights[_parameter(f"features.{layer.number}.{part}")] for part in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, padding=1)


def _parameter(name: str) -> str:
    """Return the name of a parameter of the module for that in the file."""
    return name.replace(".", "-")


def check_weights(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise InputError, naming ``source``, unless ``weights`` hold all of :func:`weight_shapes`.

    Those are kernels (channels, channels before, 3, 3) and biases of finite numbers.
    """
    shapes = weight_shapes()
    for name, shape in shapes.items():
        if name not in weights:
            raise InputError(
                f"{source} is no VGG19: it lacks {name} (of shape {shape}) and has {_first_names(weights)}; give "
                "torchvision's vgg19-dcbb9e9d.pth, or a file with the same names"
            )
        if tuple(weights[name].shape) != shape:
            raise InputError(
                f"{source} is no VGG19: {name} has shape {tuple(weights[name].shape)} in place of {shape}; give "
                "torchvision's vgg19-dcbb9e9d.pth (vgg19_bn and the smaller ones of the family are other networks)"
            )
        if not (weights[name].is_floating_point() and torch.isfinite(weights[name]).all()):
            raise InputError(f"{source}: {name} holds what is no finite number: get the file anew")


def _first_names(weights: Mapping[str, Tensor], most: int = 3) -> str:
    names = list(weights)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{rest}" if names else "no tensors"


def network_input(pixels: Tensor) -> Tensor:
    """Return stored images (B, C, H, W) as float32 in [0, 1]: what :meth:`Vgg19.features` takes.

    8 bits are divided by 255. Of 16 bits the range that these images use is brought to [0, 1] (a window, as
    radiologists call it): they seldom fill their 65,536 values, and the network knows none but bright photographs.

    Raises:
        InputError: pixels that are neither uint8 nor uint16.

    """
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if pixels.dtype != torch.uint16:
        raise InputError(f"stored pixels are uint8 or uint16, not {pixels.dtype}: convert them with .to(torch.uint8)")
    values = pixels.to(torch.int32)
    low, high = int(values.min()), int(values.max())
    return (values - low).float() / max(1, high - low)
