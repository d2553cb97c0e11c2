"""What requests ask for: the fields of every body, checked before a model sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from freqgan.errors import InputError, nearest

MOST_SEEDS = 2**63 - 1
LONGEST_VECTOR = 16_384
LONGEST_TEXT = 4_096
LONGEST_NAME = 200
MOST_BANDS = 256

Body = TypeVar("Body", bound="RequestBody")


def _encodable(text: str) -> str:
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ValueError("it is no text: half of a pair of surrogates has no letter")
    return text


def _from_json(value: Any) -> Any:
    """Return what the text of a form's field holds as JSON, and anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error


def _bands(value: Any) -> Any:
    """Return the bands of "HL1,LH1", a form's field, as a list, and anything else as it is."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Seed = Annotated[int, Field(ge=0, le=MOST_SEEDS)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_encodable)]
Name = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_encodable)]
Factor = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Gains = Annotated[dict[Name, Factor], Field(max_length=MOST_BANDS), BeforeValidator(_from_json)]
Bands = Annotated[list[Name], Field(max_length=MOST_BANDS), BeforeValidator(_bands)]
ImageFile = Annotated[bytes, Field(json_schema_extra={"format": "binary"})]


class RequestBody(BaseModel):
    """Base of all bodies: what is not among the fields is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mixture(RequestBody):
    """The picture of one seed with the detail of another."""

    coarse: Seed = Field(description="Seed of the picture.")
    fine: Seed = Field(description="Seed of the detail.")
    at: Annotated[int, Field(ge=1, le=32)] | Literal["time"] = Field(
        1,
        description="Level up to whose low band the picture is of `coarse`; time: of clips all changes are of `fine`.",
    )
    by: Literal["noise", "coefficients"] = Field("noise", description="What is mixed.")


class Interpolation(RequestBody):
    """An image on the way from that of one seed to that of another."""

    first: Seed = Field(description="Seed of the image at share 0.")
    second: Seed = Field(description="Seed of the image at share 1.")
    share: float = Field(ge=0, le=1, allow_inf_nan=False, description="Of the way from the first to the second.")
    second_class: Name | None = Field(None, description="Class of the second, if it is another than `class`.")


class GenerationFields(RequestBody):
    """How flow experts generate, in place of what the model was trained with."""

    evaluations: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Passes of a flow expert's network for one sample."
    )
    solver: Literal["heun", "euler"] | None = Field(None, description="How flow experts step.")
    guidance: Annotated[Factor, Field(ge=-100, le=100)] | None = Field(
        None, description="How far to lead away from the guides of flow experts."
    )
    label_guidance: Annotated[Weight, Field(le=100)] | None = Field(
        None, description="How far to lead away from what is made without the class, or the whole target."
    )


class ImagesBody(GenerationFields):
    """Images that the model draws."""

    seed: Seed | None = Field(None, description="The same seed gives the same images. 0 if it is left out.")
    first: int = Field(0, ge=0, le=2**31 - 1, description="Number of the first image of the seed.")
    count: int = Field(1, ge=1, description="How many images.")
    category: Name | None = Field(None, alias="class", description="Class of all images, by its name or number.")
    label: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(None, description="Class by its number.")
    vector: Annotated[list[Factor], Field(min_length=1, max_length=LONGEST_VECTOR)] | None = Field(
        None, description="Embedding of what the images are to show."
    )
    prompt: Text | None = Field(None, description="Text that says what the images are to show.")
    like: Base64Bytes | None = Field(
        None, description="Example whose features the images are to have: a file of JPEG, PNG or WebP in base64."
    )
    mix: Mixture | None = Field(None, description="In place of `seed`: the picture of one, the detail of another.")
    interpolate: Interpolation | None = Field(
        None, description="In place of `seed`: an image on the way from one to another."
    )
    gains: Gains = Field(default_factory=dict, description='Factor by band, for example {"HH1": 1.5}.')
    resample: Bands = Field(default_factory=list, description="Bands that are drawn anew.")
    resample_seed: Seed | None = Field(
        None, description="Seed of what is drawn anew, another one than `seed`. `seed` + 1 if it is left out."
    )
    truncation: float = Field(1.0, ge=0, le=10, allow_inf_nan=False, description="Is multiplied with the noise.")
    part: Literal["image", "chain", "companion"] = Field("image", description="The blend, or one half of it.")
    format: Literal["png", "webp", "npy", "preview", "zip", "json", "layers"] | None = Field(
        None,
        description="For one image: png; webp for a clip, which plays; npy for the numbers of all channels, (H, W, C) "
        "or (T, H, W, C); preview for a picture of 8 bits of what people see of it; layers for what each band adds to "
        "it in about [-1, 1], safetensors of 16 bits, whose sum it is. zip, or json with files in base64, for any "
        "number. Left out it is a file that holds all of the image, or a zip of such.",
    )


class SuperResolveForm(GenerationFields):
    """An image that is enlarged: as small as a low band, or of the model's size and larger, and reduced first."""

    image: ImageFile = Field(description="JPEG, PNG or WebP.")
    level: int = Field(1, ge=1, le=32, description="The input is the low band of this level; 1 doubles its side.")
    seed: Seed = Field(0, description="Seed of the detail that is made up.")
    category: Name | None = Field(None, alias="class", description="Class of the image.")


class EditForm(GenerationFields):
    """An image whose bands are weighed, or drawn anew by a model of flow experts."""

    image: ImageFile = Field(description="JPEG, PNG or WebP; cut to a square and resized to the model's size.")
    gains: Gains = Field(default_factory=dict, description='JSON: factor by band, for example {"HH1": 1.5}.')
    resample: Bands = Field(default_factory=list, description="Bands that are drawn anew, such as HL1,LH1.")
    resample_seed: Seed = Field(1, description="Seed of what is drawn anew.")
    category: Name | None = Field(None, alias="class", description="Class of the image.")


class StyleForm(RequestBody):
    """An image that takes the colours and textures of another, band by band."""

    content: ImageFile = Field(description="The image that is changed.")
    style: ImageFile = Field(description="The image whose colours and textures it takes.")
    mask: ImageFile | None = Field(None, description="Of the size of `content`, white where the style goes.")
    strength: Text | None = Field(None, description="VALUE, LEVEL=VALUE or LL=VALUE from 0 to 1, commas between.")
    levels: int | None = Field(None, ge=1, le=10, description="Resolutions.")
    transform: Name | None = Field(None, description="dwt:<wavelet>, dct, fft:shannon, fft:meyer or radial:P,Q.")
    seed: Seed = Field(0, description="Seed of the transports.")


class DecomposeForm(RequestBody):
    """An image that is taken apart into its bands."""

    image: ImageFile = Field(description="JPEG, PNG or WebP.")
    transform: Name = Field("dwt:haar", description="dwt:<wavelet>, dct, fft:shannon, fft:meyer or radial:P,Q.")
    levels: int = Field(3, ge=1, le=10, description="Resolutions.")
    packets: Name = Field("", description="LEVEL=TIMES, commas between: splits the high bands of a level again.")
    format: Literal["png", "json", "safetensors"] = Field(
        "png", description="A mosaic of the bands, a table of them, or their coefficients."
    )


class BodyError(InputError):
    """A body that cannot be used; ``field`` is what is wrong in it, if it is one field."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def parse_json(kind: type[Body], data: bytes) -> Body:
    """Return the fields of a body of JSON; BodyError where it has others, or wrong values."""
    try:
        return kind.model_validate_json(data or b"{}", strict=True)
    except ValidationError as error:
        raise _body_error(kind, error) from error


def parse_fields(kind: type[Body], values: Mapping[str, str | bytes]) -> Body:
    """Return the fields of a form, texts and files by name; BodyError where it has others, or wrong values.

    A field without a text is left out, as pages send fields that nobody has filled in.
    """
    values = {name: value for name, value in values.items() if value != ""}
    files = file_fields(kind)
    for name, value in values.items():
        if name in field_names(kind) and (name in files) != isinstance(value, bytes):
            wanted = "a file: send it with a file name, as `curl -F name=@file` does" if name in files else "no file"
            raise BodyError(f"{name} is to be {wanted}", name)
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _body_error(kind, error) from error


def field_names(kind: type[RequestBody]) -> list[str]:
    """Return the names of the fields as requests have them."""
    return [info.alias or name for name, info in kind.model_fields.items()]


def file_fields(kind: type[RequestBody]) -> set[str]:
    """Return the names of the fields that are files."""
    return {name for name, info in kind.model_fields.items() if "bytes" in str(info.annotation)}


def _body_error(kind: type[RequestBody], error: ValidationError) -> BodyError:
    """Return what is wrong first, in one sentence; nothing of the values is repeated."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a wrong name is also missing
    place = ".".join(_printable(part) for part in first["loc"])
    known = field_names(kind)
    if first["type"] == "extra_forbidden":
        name = _printable(first["loc"][-1])
        inner = place != name
        nested: dict[str, type[RequestBody]] = {"mix": Mixture, "interpolate": Interpolation}
        fields = field_names(nested[str(first["loc"][0])]) if inner else known
        return BodyError(f"no field is called {place}{nearest(name, fields)}; there are {', '.join(fields)}", place)
    message = re.sub(r"^Value error, ", "", str(first["msg"]))
    if not place:
        return BodyError(f"the body is no object of JSON with fields ({message}); there are {', '.join(known)}")
    remedy = "give it" if first["type"] == "missing" else "correct it, or leave it out"
    return BodyError(f"{place}: {message[:1].lower() + message[1:]}; {remedy}", place)


def _printable(part: object) -> str:
    text = str(part)[:LONGEST_NAME]
    return text.encode("utf-8", "backslashreplace").decode()


def schema_of(kinds: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Return the JSON schemas of ``kinds`` and all that they refer to, by name, as an OpenAPI document has them."""
    schemas: dict[str, Any] = {}
    for kind in kinds:
        schema = kind.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    return schemas
