"""The sizes of networks, without the networks: settings are checked with it, and need no torch."""

from __future__ import annotations

from pydantic import Field

from freqgan.setting_group import SettingGroup


class NetworkSettings(SettingGroup):
    """Sizes of one kind of network; widths are channels."""

    width: int = Field(48, ge=4, le=65_536, description="Channels on the network's own grid.")
    coarse_width: int = Field(64, ge=4, le=65_536, description="Channels at every coarser resolution.")
    blocks: int = Field(1, ge=1, le=16, description="Residual blocks on the network's own grid.")
    patch: int = Field(2, ge=1, le=4, description="Pixels along a side that share one grid cell, as channels.")
    expansion: int = Field(2, ge=1, le=8, description="Channels inside a block over channels outside.")
    group_width: int = Field(16, ge=1, le=65_536, description="Channels in one group of the 3x3 convolution.")


class VelocityNetworkSettings(SettingGroup):
    """Sizes of the U-Net of a flow expert; widths are channels."""

    width: int = Field(64, ge=4, le=65_536, description="Channels on the network's own grid.")
    coarse_width: int = Field(96, ge=4, le=65_536, description="Channels at every coarser resolution.")
    blocks: int = Field(1, ge=1, le=16, description="Residual blocks at every resolution, on the way down and up.")
    patch: int = Field(1, ge=1, le=4, description="Pixels along a side that share one grid cell, as channels.")
    heads: int = Field(4, ge=1, le=64, description="Heads of the attention.")
    attention_side: int = Field(
        8, ge=0, le=256, description="Attention is used on grids of at most so many cells a side; 0 for none."
    )
