"""What a target vector is made of: classes, vectors, features, captions. Nothing here needs torch."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from freqgan.errors import InputError, nearest
from freqgan.setting_group import SettingGroup

ConditioningKind = Literal["class", "features", "embedding", "caption"]
CONDITIONING_KINDS: tuple[str, ...] = get_args(ConditioningKind)
NEIGHBOURS = 20
PIXELS = "pixels"
"""The network of features that are the pixels themselves."""


class ConditioningSettings(SettingGroup):
    """The target vector of every image, which all generators and discriminators see."""

    kinds: tuple[ConditioningKind, ...] = Field(
        (),
        description="The parts of the target: class (with classes=<number>), embedding (a vector beside each image), "
        "features (of the image, by a network), caption (a text beside each image). conditioning=class,caption is "
        "short for this. With classes alone, and nothing here, labels are shown to all samples.",
    )
    drop: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of samples that are trained without their target, for images without one and for "
        "generation.label_guidance.",
    )
    embedding: str = Field(
        "npy",
        description="Where the vector of an image is: npy, the member <key>.npy; or json:a,b, the numbers (or lists of "
        "numbers) in these fields of <key>.json.",
    )
    embedding_length: int = Field(0, ge=0, le=65_536, description="Numbers in the vector of an image.")
    caption: str = Field(
        "txt", description="Where the text of an image is: txt, the member <key>.txt; or json:text, a field."
    )
    caption_bytes: int = Field(
        96, ge=1, le=4096, description="Bytes of a text (UTF-8) that are read; what is behind them is cut off."
    )
    caption_width: int = Field(64, ge=8, le=4096, description="Channels of the network that reads texts.")
    caption_layers: int = Field(2, ge=1, le=32, description="Layers of that network.")
    network: str = Field(
        "",
        description="Where features come from: weights of VGG19, a file or s3:// URL of torchvision's or timm's; "
        "pixels, the image itself, of 16 x 16 pixels at most; a network with fixed random weights where not given.",
    )
    run: str = Field(
        "",
        description="Folder or s3:// URL of the run of another model, of features alone. Wherever images are made and "
        "none is given as an example, their features are those of images that its newest model makes of the same seed: "
        "with network=pixels this is the second stage of a cascade. Training shows features of real images.",
    )
    features_length: int = Field(
        64, ge=1, le=4096, description="Features of an image that are shown: its largest principal components."
    )
    neighbours: int = Field(
        0,
        ge=0,
        le=1000,
        description="Features shown with an image are those of one at random of so many nearest images, itself among "
        f"them; 1 shows its own. 0 is {NEIGHBOURS} where a discriminator could learn to ask for copies, and else 1.",
    )
    features_noise: float = Field(
        0.1, ge=0, description="Deviation of the noise on features in training; features have the deviation 1."
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take names between commas, or none."""
        if value in ("none", "", None):
            return ()
        names = value.split(",") if isinstance(value, str) else value
        if isinstance(names, list | tuple):
            names = tuple(dict.fromkeys(name.strip() if isinstance(name, str) else name for name in names))
            for name in names:
                if name not in CONDITIONING_KINDS:
                    near = nearest(str(name), list(CONDITIONING_KINDS))
                    raise InputError(
                        f"conditioning: no target is called {name!r}{near}; there are {', '.join(CONDITIONING_KINDS)}"
                    )
        return names

    @field_validator("embedding", "caption")
    @classmethod
    def _check_source(cls, value: str, info: object) -> str:
        """Refuse what names neither a member nor fields."""
        kind, _, fields = value.partition(":")
        if (kind == "json") != bool(fields) or (kind != "json" and not kind.isalnum()):
            raise InputError(
                f"{value!r} names no member of a sample: give the extension of one, such as npy or txt, or "
                "json:<field>, with commas between several fields"
            )
        return value

    def shows(self, kind: ConditioningKind) -> bool:
        """Return whether ``kind`` is a part of the target."""
        return kind in self.kinds
