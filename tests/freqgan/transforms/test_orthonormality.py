"""Whether a transform is a rotation of the pixels, by its matrix."""

from __future__ import annotations

import pytest
import torch

from freqgan.transforms import parse_transform

SPECS = ["dwt:haar", "dwt:db2", "dwt:sym4", "dwt:bior2.2", "dwt:bior4.4", "dct", "fft:shannon", "fft:meyer"]


@pytest.mark.parametrize("side", [16, 12, 18])
@pytest.mark.parametrize(("spec", "packets"), [*((spec, {}) for spec in SPECS), ("radial:2,3", {}), ("dct", {1: 1})])
def test_a_transform_knows_whether_its_matrix_is_orthogonal(spec: str, packets: dict[int, int], side: int) -> None:
    """18 is no multiple of 2^2, so that images are padded; of 12 pixels LL2 has 3."""
    transform = parse_transform(spec, 2, packets or None)
    pixels = torch.eye(side**2, dtype=torch.float64).view(-1, 1, side, side)
    bands = {b: x for b, x in transform.analyse(pixels).items() if b.orientation != "LL" or b.level == 2}
    matrix = torch.cat([x.flatten(1) for x in bands.values()], dim=1).mT
    identity = torch.eye(side**2, dtype=torch.float64)
    orthogonal = matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix @ matrix.mT, identity, atol=1e-9)
    assert transform.is_orthonormal((side, side)) == orthogonal
    assert transform.is_orthonormal((side, side)) == orthogonal  # as it is remembered
    if side == 16:
        assert orthogonal != spec.startswith(("radial", "dwt:bior"))
    if side == 18:
        assert not orthogonal
