from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from cluster.data.decoding import ImageForm, TooLargeError, decode_image, fit_image, image_format, natural_form
from cluster.data.settings import ImagePolicy
from cluster.data.stored_images import read_image
from cluster.formats.arrays import encode_npy
from freqgan.errors import InputError
from freqgan.seeds import derive_seed
from tests.support.jpegs import RARE
from tests.support.pngs import COLOUR, COLOUR_ALPHA, written


def photo(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Smooth noise: it compresses like a photograph and has no symmetry."""
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)).convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decodes_as_pillow_does(kind: str, mode: str) -> None:
    data = encode(photo(mode=mode), kind)
    pixels = decode_image(data, "x")
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 48, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_one_channel_is_luma(kind: str) -> None:
    data = encode(photo(), kind)
    pixels = decode_image(data, "x", channels=1)
    assert pixels.shape == (32, 48, 1)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    # A JPEG stores luma itself; Pillow makes it again out of clipped and rounded RGB.
    assert np.abs(pixels[:, :, 0] - expected).max() <= (1 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_image(data, "x"), expected)


TIFF = b"MM\0*\0\0\0\x08\0\x01"
BROKEN_EXIF = {
    "garbage": b"Exif\0\0\0\x08garbage",
    "no header": b"garbage",
    "nothing": b"Exif\0\0",
    "no directory": b"Exif\0\0II*\0\x08\0\0\0",
    "a cut directory": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "a directory that lies elsewhere": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "a large TIFF": b"Exif\0\0II+\0\x08\0\0\0",
    "a text as orientation": b"Exif\0\0" + TIFF + b"\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",
    "orientation 6 of 5 numbers": b"Exif\0\0" + TIFF + b"\x01\x12\0\x03\0\0\0\x05\0\0\0\x1a\0\0\0\0",
    "a fraction of nothing": b"Exif\0\0" + TIFF + b"\x01\x12\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0" + bytes(8),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about an EXIF that it can read in part
@pytest.mark.parametrize("exif", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_turns_nothing(kind: str, exif: bytes) -> None:
    data = encode(photo(), kind, exif=exif)
    np.testing.assert_array_equal(decode_image(data, "x"), decode_image(encode(photo(), kind), "x"))
    assert natural_form(data, "x") == ImageForm(3, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_by_xmp_alone(kind: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    information = PngInfo()
    information.add_itxt("XML:com.adobe.xmp", xmp.decode())
    data = encode(photo(), kind, **({"pnginfo": information} if kind == "PNG" else {"xmp": xmp}))
    np.testing.assert_array_equal(decode_image(data, "x"), np.rot90(decode_image(encode(photo(), kind), "x"), -1))


def test_cmyk_is_converted() -> None:
    data = encode(photo(mode="CMYK"), "JPEG", quality=95)
    difference = decode_image(data, "x").astype(int) - np.asarray(photo())
    assert np.abs(difference).mean() < 4


def test_transparency_lies_on_the_background() -> None:
    image = photo(mode="RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 10, 32))
    alpha.paste(128, (10, 0, 20, 32))
    image.putalpha(alpha)
    pixels = decode_image(encode(image, "PNG"), "x", background=(10, 20, 30))
    original = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels[:, :10] == (10, 20, 30)).all()
    assert np.abs(pixels[:, 10:20] - (original[:, 10:20] * 128 + np.array([10, 20, 30]) * 127) / 255).max() <= 1
    np.testing.assert_array_equal(pixels[:, 20:], original[:, 20:])


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (2, 0, 4, 4))
    pixels = decode_image(encode(image, "PNG", transparency=0), "x")
    assert (pixels[:, :2] == (255, 255, 255)).all()
    assert (pixels[:, 2:] == (0, 255, 0)).all()


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65407, 65535]], dtype=np.uint16)
    pixels = decode_image(encode(Image.fromarray(values), "PNG"), "x", channels=1)
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_sixteen_bits_are_kept_where_they_are_asked_for() -> None:
    values = np.array([[0, 1, 129, 257, 32768, 65278, 65534, 65535]], dtype=np.uint16)
    pixels = decode_image(encode(Image.fromarray(values), "PNG"), "x", channels=1, bit_depth=16)
    assert pixels.dtype == np.uint16
    assert pixels[0, :, 0].tolist() == values[0].tolist()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_eight_bits_are_spread_over_sixteen(kind: str) -> None:
    data = encode(photo(), kind)
    eight = decode_image(data, "x", channels=1).astype(int)
    sixteen = decode_image(data, "x", channels=1, bit_depth=16)
    assert sixteen.dtype == np.uint16
    np.testing.assert_array_equal(sixteen, eight * 257)


def test_sixteen_bits_are_resampled_as_sixteen() -> None:
    """A ramp in steps of one level of 16 bits, twice as large as wanted: its means lie between levels of 8 bits."""
    ramp = np.add.outer(np.arange(64), np.zeros(64)).astype(np.uint16) + 30000
    small = fit_image(ramp[:, :, None], ImagePolicy(size=32, channels=1, bit_depth=16))
    assert small.dtype == np.uint16
    np.testing.assert_allclose(small[0, 2:-2, 5], 30000.5 + 2 * np.arange(2, 30), atol=1)
    extremes = np.where(np.arange(64) % 32 < 16, 0, 65535).astype(np.uint16)
    rung = fit_image(np.tile(extremes, (64, 1))[:, :, None], ImagePolicy(size=24, channels=1, bit_depth=16))
    assert (rung.min(), rung.max()) == (0, 65535)  # Lanczos overshoots, and is clipped


def test_sixteen_bits_of_colours_and_transparency_are_kept() -> None:
    samples = np.random.default_rng(0).integers(0, 2**16, (5, 7, 4))
    data = written(samples, COLOUR_ALPHA, 16)
    np.testing.assert_array_equal(decode_image(data, "x", channels=4, bit_depth=16), samples)
    opaque = written(samples[:, :, :3], COLOUR, 16)
    np.testing.assert_array_equal(decode_image(opaque, "x", channels=3, bit_depth=16), samples[:, :, :3])
    assert (decode_image(opaque, "x", channels=4, bit_depth=16)[:, :, 3] == 65535).all()
    share, colours = samples[:, :, 3:] / 65535, samples[:, :, :3].astype(float)
    on_white = decode_image(data, "x", channels=3, bit_depth=16)
    np.testing.assert_allclose(on_white, colours * share + 65535 * (1 - share), atol=0.6)


def test_transparency_is_a_channel_where_it_is_asked_for() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    data = encode(Image.fromarray(samples), "PNG")
    np.testing.assert_array_equal(decode_image(data, "x", channels=4), samples)
    assert decode_image(data, "x", channels=2).shape == (5, 7, 2)
    photograph = encode(Image.fromarray(samples[:, :, :3]), "JPEG")
    assert (decode_image(photograph, "x", channels=4)[:, :, 3] == 255).all()
    with pytest.raises(InputError, match="channels is 5: give arrays"):
        decode_image(data, "x", channels=5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_many_channels(dtype: Any) -> None:
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (6, 5, 12)).astype(dtype)
    data = encode_npy(array)
    wide = array.astype(np.uint16) * (257 if dtype == np.uint8 else 1)
    np.testing.assert_array_equal(decode_image(data, "x", channels=12, bit_depth=16), wide)
    np.testing.assert_array_equal(decode_image(data, "x", channels=12, bit_depth=32), array)
    narrow = decode_image(data, "x", channels=12, bit_depth=8)
    assert narrow.dtype == np.uint8
    assert np.abs(narrow.astype(float) * 257 - wide).max() <= 128.5
    with pytest.raises(InputError, match="x has 12 channels, and channels is 3: set channels=12"):
        decode_image(data, "x", channels=3)
    small = fit_image(array, ImagePolicy(size=3, channels=12, bit_depth=16 if dtype == np.uint16 else 8))
    assert small.shape == (12, 3, 3)
    assert small.dtype == dtype


def test_floats_are_brought_to_their_range() -> None:
    array = np.linspace(-1024, 3071, 60, dtype=np.float32).reshape(5, 6, 2)
    data = encode_npy(array)
    policy = ImagePolicy(size=(5, 6), channels=2, bit_depth=32, value_range=(-1024, 3071))
    ours = read_image(data, "x", policy, {})
    np.testing.assert_allclose(ours.transpose(1, 2, 0), (array + 1024) / 4095 * 2 - 1, atol=1e-6)
    stored = encode_npy((array + 1024).round().astype(np.uint16))
    by_offset = read_image(stored, "x", policy, {"offset": -1024, "slope": 1})
    np.testing.assert_allclose(by_offset, ours, atol=1 / 4095 + 1e-6)
    narrow = replace(policy, value_range=(-500, 500))
    with pytest.raises(InputError, match=r"x has values from -1024 to 3071, outside of value_range=\[-500, 500\]"):
        read_image(data, "x", narrow, {})
    clipped = read_image(data, "x", replace(narrow, clip_values=True), {})
    assert (clipped.min(), clipped.max()) == (-1, 1)
    with pytest.raises(InputError, match="set bit_depth=32 and value_range"):
        decode_image(data, "x", channels=2)


def test_strips_are_read_frame_by_frame() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3)).astype(np.uint8)
    strip = encode(Image.fromarray(frames.reshape(48, 10, 3)), "PNG")
    policy = ImagePolicy(size=(8, 10), frames=6)
    clip = read_image(strip, "x", policy, {"frames": 6})
    np.testing.assert_array_equal(clip.reshape(6, 3, 8, 10), frames.transpose(0, 3, 1, 2))
    short = read_image(strip, "x", replace(policy, frames=2), {"frames": 6})
    np.testing.assert_array_equal(short.reshape(2, 3, 8, 10), frames[2:4].transpose(0, 3, 1, 2))
    random = replace(policy, frames=2, crop="random", size=8)
    places = {read_image(strip, "x", random, {"frames": 6}, "seed", place).tobytes() for place in range(40)}
    known = {
        np.concatenate([f.transpose(2, 0, 1)[:, :, left : left + 8] for f in frames[first : first + 2]]).tobytes()
        for first in range(5)
        for left in range(3)
    }
    assert places <= known
    assert len(places) > 8
    with pytest.raises(InputError, match="x has 6 frames, and the model's images are no clips: set frames=6"):
        read_image(strip, "x", ImagePolicy(size=8), {"frames": 6})
    with pytest.raises(InputError, match="x has 6 frames, and the model's clips have 8: pack longer clips"):
        read_image(strip, "x", replace(policy, frames=8), {"frames": 6})
    with pytest.raises(InputError, match="x has 48 rows, which are not 5 frames"):
        read_image(strip, "x", replace(policy, frames=5), {"frames": 5})
    with pytest.raises(InputError, match="\"frames\" beside x is 'six'"):
        read_image(strip, "x", policy, {"frames": "six"})


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", (3, 8)), ("L", (1, 8)), ("LA", (1, 8)), ("P", (3, 8)), ("I;16", (1, 16)), ("1", (1, 8))]
)
def test_the_form_that_holds_all_of_an_image(mode: str, form: tuple[Any, Any]) -> None:
    image = Image.fromarray(np.zeros((4, 4), np.uint16)) if mode == "I;16" else Image.new(mode, (4, 4))
    assert natural_form(encode(image, "PNG"), "x") == ImageForm(
        *form, ("its transparency laid on white",) if mode == "LA" else ()
    )


def test_sixteen_bits_with_a_transparent_value() -> None:
    values = np.array([[0, 1000, 65535]], dtype=np.uint16)
    data = encode(Image.fromarray(values), "PNG")
    body = struct.pack(">H", 1000)
    chunk = struct.pack(">I", 2) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    data = data[:33] + chunk + data[33:]
    assert decode_image(data, "x", channels=1, background=(200, 200, 200))[0, :, 0].tolist() == [0, 200, 255]
    sixteen = decode_image(data, "x", channels=1, background=(200, 200, 200), bit_depth=16)
    assert sixteen[0, :, 0].tolist() == [0, 200 * 257, 65535]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 3
    assert (decode_image(data, "x") == (255, 0, 0)).all()


def test_the_format_is_told_by_the_bytes() -> None:
    png = encode(photo(), "PNG")
    assert image_format(png) == "png"
    np.testing.assert_array_equal(decode_image(png, "really-a-png.jpg"), np.asarray(photo()))


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>404</title>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_no_image_at_all(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^a/b.jpg is (no JPEG, PNG or WebP|damaged or cut off)"):
        decode_image(content, "a/b.jpg")


def test_floating_point_tiff_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(-3, 1e6, 64, dtype=np.float32).reshape(8, 8)).save(buffer, "TIFF")
    with pytest.raises(InputError, match=r"^a.tif is no JPEG, PNG or WebP \(it begins with b'II"):
        decode_image(buffer.getvalue(), "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"a/b.jpg is no JPEG, PNG or WebP \(it begins with b'.*convert or remove"):
        decode_image(encode(photo(), kind), "a/b.jpg")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_every_cut_is_an_error(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = encode(photo(24, 16).convert(mode), kind, **options)
    decode_image(data, "whole")
    for length in range(len(data)):
        with pytest.raises(InputError, match=r"^cut\.img is (damaged or cut off|no JPEG)"):
            decode_image(data[:length], "cut.img")


def test_a_cut_animation_is_an_error() -> None:
    frames = [photo(16, 16), photo(16, 17).crop((0, 0, 16, 16))]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    for length in range(0, len(data), 7):
        with pytest.raises(InputError):
            decode_image(data[:length], "cut.webp")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_too_many_pixels_are_refused_before_decoding(kind: str) -> None:
    data = encode(photo(40, 30), kind)
    decode_image(data, "x", max_pixels=1200)
    with pytest.raises(InputError, match="bomb has 40 x 30 pixels, more than the 1199 allowed: make it smaller"):
        decode_image(data, "bomb", max_pixels=1199)


def test_a_small_file_that_claims_to_be_huge() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    end = b"\0\0\0\0IEND\xaeB`\x82"
    with pytest.raises(InputError, match=r"bomb\.png has 60000 x 60000 pixels, more than the 67108864 allowed"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunk + end, "bomb.png")


def of_every_reader() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [photo().transpose(Image.Transpose.ROTATE_180)]}
    return {
        "JPEG": encode(photo(), "JPEG"),
        "turned JPEG": encode(photo(), "JPEG", exif=exif),
        "CMYK": encode(photo(mode="CMYK"), "JPEG"),
        "rare JPEG": RARE["4x2,1x1,1x1"],
        "PNG": encode(photo(), "PNG"),
        "PNG of 16 bits": encode(Image.fromarray(np.arange(1536, dtype=np.uint16).reshape(32, 48)), "PNG"),
        "WebP": encode(photo(), "WEBP"),
        "turned WebP": encode(photo(), "WEBP", exif=exif),
        "WebP without loss": encode(photo(), "WEBP", lossless=True),
        "WebP with alpha": encode(photo(mode="RGBA"), "WEBP", lossless=True, exif=exif),
        "WebP of two frames": encode(photo(), "WEBP", **frames),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", of_every_reader().values(), ids=of_every_reader())
def test_the_bound_of_pillow_is_not_ours(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, form = decode_image(data, "x"), natural_form(data, "x")
    assert wanted.size // 3 == 960 if data is RARE["4x2,1x1,1x1"] else 1536
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(decode_image(data, "x"), wanted)
    assert natural_form(data, "x") == form or form.changes[-1:] == ("the first of its 2 frames",)
    assert fit_image(decode_image(data, "x"), ImagePolicy(size=8)).shape == (3, 8, 8)
    with pytest.raises(TooLargeError, match=r"x has \d+ x \d+ pixels, more than the 959 allowed"):
        decode_image(data, "x", max_pixels=959)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("name", ["WebP", "WebP without loss", "WebP with alpha", "WebP of two frames"])
def test_a_webp_that_claims_to_be_huge(name: str) -> None:
    data = bytearray(of_every_reader()[name])
    if data[12:16] == b"VP8X":
        data[24:30] = b"\xff\x3f\0\xff\x3f\0"
    elif data[12:16] == b"VP8L":
        data[21:25] = b"\xff\xff\xff\x0f"
    else:
        data[26:30] = b"\xff\x3f\xff\x3f"
    with pytest.raises(TooLargeError, match=r"x has 1638[34] x 1638[34] pixels"):
        decode_image(bytes(data), "x")
    with pytest.raises(TooLargeError):
        natural_form(bytes(data), "x")


def test_an_image_that_fits_is_not_touched() -> None:
    image = np.asarray(photo(32, 32))
    np.testing.assert_array_equal(fit_image(image, ImagePolicy(size=32)), image.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (33, 32)])
def test_the_centre_is_cropped(width: int, height: int) -> None:
    image = np.asarray(photo(width, height))
    left, top = (width - 32) // 2, (height - 32) // 2
    fitted = fit_image(image, ImagePolicy(size=32))
    np.testing.assert_array_equal(fitted, image[top : top + 32, left : left + 32].transpose(2, 0, 1))


def test_random_crops_depend_on_the_seed_alone() -> None:
    image = np.asarray(photo(40, 32))
    policy = ImagePolicy(size=32, crop="random")
    offsets = set()
    for position in range(200):
        offset = derive_seed(7, "crop", position) % 9
        fitted = fit_image(image, policy, 7, "crop", position)
        np.testing.assert_array_equal(fitted, image[:, offset : offset + 32].transpose(2, 0, 1))
        offsets.add(offset)
    assert offsets == set(range(9))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(500, 300), (20, 10), (64, 1), (1, 1), (2000, 90)])
def test_every_size_fits(width: int, height: int, channels: Any) -> None:
    image = np.full((height, width, channels), 77, np.uint8)
    fitted = fit_image(image, ImagePolicy(size=16, channels=channels))
    assert fitted.shape == (channels, 16, 16)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()


def test_reducing_is_antialiased() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    fitted = fit_image(stripes, ImagePolicy(size=32))
    assert np.abs(fitted.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": 8, "channels": 0}, {"size": 8, "crop": "left"}])
def test_impossible_policies_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be made: size, channels and frames must be"):
        ImagePolicy(**settings)
