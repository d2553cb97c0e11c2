"""How many bits a stored pixel has: whole numbers of 8 or 16 bits, or floating-point ones of 32."""

from __future__ import annotations

from typing import Literal

BitDepth = Literal[8, 16, 32]

FLOAT_BITS: BitDepth = 32
"""Of pixels that are float32 and not whole numbers."""
