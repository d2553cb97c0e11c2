"""How many bits a stored pixel has."""

from __future__ import annotations

from typing import Literal

BitDepth = Literal[8, 16]
