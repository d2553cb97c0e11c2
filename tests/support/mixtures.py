"""Settings of small runs with flow experts, alone or in mixed chains, that tests share."""

from __future__ import annotations

from typing import Any

TINY_VELOCITY = {"width": 8, "coarse_width": 8, "heads": 1}
TINY_FLOW: dict[str, Any] = {"coarse_network": TINY_VELOCITY, "band_network": TINY_VELOCITY}
FLOWS: dict[str, Any] = {
    "experts": {"default": "flow"},
    "plan": {"high_gans": {1: 1}, "strict_nesting": True},
    "image_stage": {"enabled": False},
    "flow": TINY_FLOW,
}
"""Two flow experts, LL1 and HL-LH-HH1, and nothing else."""
FLOW_BELOW_GAN: dict[str, Any] = {"experts": {"LL1": "flow"}, "plan": {"bands": ["LL1", "HL1"]}, "flow": TINY_FLOW}
"""A flow expert for LL1, a GAN for HL1 and the image stage; the GAN sees the real LL1."""
SAMPLED: dict[str, Any] = {**FLOW_BELOW_GAN, "flow": {**TINY_FLOW, "outputs": "samples", "output_evaluations": 2}}
"""The same; the GAN sees samples of the flow expert."""
SMALL_FLOW_OVERRIDES = (
    "flow.coarse_network={width: 8, coarse_width: 8}",
    "flow.band_network={width: 8, coarse_width: 8}",
)
FLOW_OVERRIDES = ("experts=flow", "image_stage=none", "plan.high_gans.1=1", *SMALL_FLOW_OVERRIDES)
"""The same two flow experts on the command line, as changes of the preset smoke."""
