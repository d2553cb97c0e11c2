"""The settings of how shards become batches; they need neither decoders nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError
from freqgan.setting_group import SettingGroup
from freqgan.sizes import Size, width_by_height

if TYPE_CHECKING:  # settings are checked without NumPy
    import numpy as np

Channel = Annotated[int, Field(ge=0, le=255)]
IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "webp")
ARRAY_EXTENSION = "image.npy"
"""Of an image of any number of channels, uint8, uint16 or float32."""
MEMBER_EXTENSIONS = ("npy", "txt", "json")
"""What lies beside an image in a shard and can be read as its target."""
WHITE = (255, 255, 255)
MAX_PIXELS = 64 * 2**20
"""Images above this are refused from their header: at 4 bytes a pixel this is 256 MiB."""


@dataclass(frozen=True)
class ImagePolicy:
    """How an image becomes ``channels`` x height x width: cut to the shape of ``size``, then resampled to it.

    ``size`` is the side of squares, or height and width.
    """

    size: int | Size
    channels: Literal[1, 3] = 3
    crop: Literal["center", "random"] = "center"
    background: tuple[int, int, int] = WHITE
    max_pixels: int = MAX_PIXELS
    bit_depth: BitDepth = 8

    def __post_init__(self) -> None:
        if self.shape[0] == self.shape[1]:  # one form of squares: what is cached by a policy is found by it again
            object.__setattr__(self, "size", self.shape[0])
        if min(self.shape) < 1 or self.channels not in (1, 3) or self.crop not in ("center", "random"):
            raise InputError(
                f"images of {width_by_height(self.shape)} pixels, {self.channels} channels, crop {self.crop!r} cannot "
                "be made: size must be at least 1, channels 1 or 3, crop center or random"
            )
        if self.bit_depth == 16 and self.channels != 1:
            raise InputError(f"images of 16 bits and {self.channels} channels cannot be made: channels must be 1")

    @property
    def shape(self) -> Size:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """The type of the pixels."""
        import numpy as np

        return np.uint8 if self.bit_depth == 8 else np.uint16


class DataSettings(SettingGroup):
    """How images become pixels, and in which order they come."""

    crop: Literal["center", "random"] = Field(
        "center", description="Which part of an image of another shape than image_size is taken."
    )
    shuffle: bool = Field(True, description="Whether images come in a new random order in every epoch.")
    shuffle_shards: int = Field(4, ge=1, description="Shards whose images are mixed, and which are held at a time.")
    background: tuple[Channel, Channel, Channel] = Field(
        WHITE, description="Colour behind transparent pixels: red, green, blue, 0 to 255."
    )
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, description="Pixels of an image; a larger one is refused before it is decoded."
    )

    def image_policy(self, size: int | Size, channels: Literal[1, 3] = 3, bit_depth: BitDepth = 8) -> ImagePolicy:
        """Return the policy that makes images of ``size`` and ``channels``, of ``bit_depth``, by these settings."""
        return ImagePolicy(size, channels, self.crop, self.background, self.max_pixels, bit_depth)
