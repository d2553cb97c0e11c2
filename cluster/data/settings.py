"""The settings of how shards become batches; they need neither decoders nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import InputError
from freqgan.setting_group import SettingGroup
from freqgan.sizes import Size, width_by_height

if TYPE_CHECKING:  # settings are checked without NumPy
    import numpy as np

    from freqgan.model.settings import ModelSettings

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
    """How an image becomes ``planes`` x height x width: cut to the shape of ``size``, then resampled to it.

    Attributes:
        size: the side of squares, or height and width.
        channels: of an image, or of a frame of a clip.
        crop: which part is taken, the same of all frames.
        background: colour behind transparent pixels.
        max_pixels: of a file that is decoded.
        bit_depth: of the pixels.
        frames: of a clip; 1 for images.
        value_range: the values that are -1 and 1, with bit_depth 32.
        clip_values: whether values outside of it are taken for its ends; if not, they are damage.

    """

    size: int | Size
    channels: int = 3
    crop: Literal["center", "random"] = "center"
    background: tuple[int, int, int] = WHITE
    max_pixels: int = MAX_PIXELS
    bit_depth: BitDepth = 8
    frames: int = 1
    value_range: tuple[float, float] | None = None
    clip_values: bool = False

    def __post_init__(self) -> None:
        if self.shape[0] == self.shape[1]:  # one form of squares: what is cached by a policy is found by it again
            object.__setattr__(self, "size", self.shape[0])
        if min(*self.shape, self.channels, self.frames) < 1 or self.crop not in ("center", "random"):
            raise InputError(
                f"images of {width_by_height(self.shape)} pixels, {self.channels} channels, {self.frames} frames, crop "
                f"{self.crop!r} cannot be made: size, channels and frames must be at least 1, crop center or random"
            )
        if self.bit_depth == FLOAT_BITS and self.value_range is None:
            raise InputError(
                "images of 32 bits without a value_range cannot be made: which values are black and white?"
            )

    @property
    def shape(self) -> Size:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def planes(self) -> int:
        """The channels of all frames."""
        return self.channels * self.frames

    @property
    def dtype(self) -> type[np.uint8 | np.uint16 | np.float32]:
        """The type of the pixels."""
        import numpy as np

        types: dict[int, type[np.uint8 | np.uint16 | np.float32]] = {8: np.uint8, 16: np.uint16, FLOAT_BITS: np.float32}
        return types[self.bit_depth]


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

    def image_policy(self, size: int | Size, channels: int = 3, bit_depth: BitDepth = 8) -> ImagePolicy:
        """Return the policy that makes images of ``size`` and ``channels``, of ``bit_depth``, by these settings."""
        return ImagePolicy(size, channels, self.crop, self.background, self.max_pixels, bit_depth)

    def model_policy(self, model: ModelSettings) -> ImagePolicy:
        """Return the policy that makes images, or clips, as ``model`` is trained on, by these settings."""
        return ImagePolicy(
            model.size,
            model.channels,
            self.crop,
            self.background,
            self.max_pixels,
            model.bit_depth,
            model.frames,
            model.value_range,
            model.clip_values,
        )
