"""Transforms by name, and their inputs as flat lists."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from freqgan.transforms import BandTransform, parse_transform


def named(name: str) -> BandTransform:
    return parse_transform("dwt:haar", 1, {1: 1}) if name == "packets" else parse_transform(name, 2)


def flat(coefficients: list[Any]) -> list[Tensor]:
    return [coefficients[0], *(part for details in coefficients[1:] for part in details)]
