"""The radial power spectrum: sees blur, gain and lattices."""

from __future__ import annotations

import torch
from torch import Tensor

POWER_FLOOR = 1e-3
"""Grey levels squared per coefficient; less is rounding."""


def spectrum_distance(reference: Tensor, candidate: Tensor) -> float:
    """Return the root mean square over radii of the difference of the mean log-power spectra, in decibels.

    Images (N, C, H, W) uint8; power is that of the luminance's Fourier coefficients, averaged over images, then over
    rings one frequency step wide, up to the highest frequency along an axis. Source: Durall et al. (2020).
    """
    difference = radial_spectrum(reference) - radial_spectrum(candidate)
    return float(difference.square().mean().sqrt())


def radial_spectrum(images: Tensor) -> Tensor:
    """Return the log mean power at radii 1 .. min(H, W) / 2, (R,) float64 in decibels; the mean grey is left out."""
    height, width = images.shape[-2:]
    power = torch.zeros(height, width, dtype=torch.float64)
    for chunk in torch.split(images, 1_000):
        luminance = chunk.double().mean(dim=1)
        power += torch.fft.fft2(luminance, norm="ortho").abs().square().sum(dim=0)
    power /= len(images)
    vertical, horizontal = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    radius = (vertical[:, None].square() + horizontal[None].square()).sqrt() * min(height, width)
    rings = [power[(radius > r - 0.5) & (radius <= r + 0.5)].mean() for r in range(1, min(height, width) // 2 + 1)]
    return 10 * (torch.stack(rings) + POWER_FLOOR).log10()
