"""PNGs of every colour type and depth, held against what the specification says of their samples."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluster.data.decoding import ImageForm, decode_image, natural_form
from freqgan.errors import InputError
from tests.support.pngs import (
    COLOUR,
    COLOUR_ALPHA,
    FORMS,
    GREY,
    GREY_ALPHA,
    PALETTE,
    SAMPLES_A_PIXEL,
    Samples,
    chunk,
    transparent,
    written,
)

BACKGROUND = (200, 30, 90)
LUMA = np.array([0.299, 0.587, 0.114])
Floats = NDArray[np.float64]


def drawn(colour: int, bits: int) -> Samples:
    """Random samples, and each value of the first that has up to 4 bits, in a size that fills no byte."""
    samples = np.random.default_rng(bits).integers(0, 2**bits, (9, 13, SAMPLES_A_PIXEL[colour]))
    if bits <= 4:
        samples[:, :, 0] = np.arange(9 * 13).reshape(9, 13) % 2**bits
    return samples


def laid_on_background(samples: Samples, colour: int, bits: int, key: tuple[int, ...] | None) -> Floats:
    """(H, W, 3) in [0, 1] as the specification has it: samples over their largest value, alpha linear."""
    values = samples / (2**bits - 1)
    alpha = np.ones(samples.shape[:2]) if key is None else 1.0 - (samples == key).all(axis=2)
    if colour in (GREY_ALPHA, COLOUR_ALPHA):
        values, alpha = values[:, :, :-1], values[:, :, -1]
    return over(np.broadcast_to(values, (*samples.shape[:2], 3)), alpha)


def over(colours: Floats, alpha: Floats) -> Floats:
    return colours * alpha[:, :, None] + np.array(BACKGROUND) / 255 * (1 - alpha[:, :, None])


def check(data: bytes, expected: Floats, levels: float = 1.0, levels_16: float = 257.0) -> None:
    """In 3 channels and 1 of 8 bits to ``levels`` of 255, and in 1 of 16 bits to ``levels_16`` of 65535."""

    def decoded(channels: Literal[1, 3], bit_depth: Literal[8, 16] = 8) -> Any:
        return decode_image(data, "x", channels=channels, background=BACKGROUND, bit_depth=bit_depth).astype(float)

    assert np.abs(decoded(3) - expected * 255).max() <= levels
    grey = (expected @ LUMA)[:, :, None]
    assert np.abs(decoded(1) - grey * 255).max() <= levels
    assert np.abs(decoded(1, 16) - grey * 65535).max() <= levels_16


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), FORMS)
def test_every_form(colour: int, bits: int, interlaced: bool) -> None:
    samples = drawn(colour, bits)
    data = written(samples, colour, bits, interlaced=interlaced)
    # Pillow cuts colour of 16 bits to 8 before anything else is done with it.
    check(data, laid_on_background(samples, colour, bits, None), 2.5, 1.5 if bits == 16 else 257)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (4, 4), (8, 12)])
@pytest.mark.parametrize(("colour", "bits"), [form for form in FORMS if form[0] in (GREY, COLOUR)])
def test_one_transparent_colour_of_every_depth(colour: int, bits: int, place: tuple[int, int]) -> None:
    """Beside ones that differ from it in one bit alone, and half of the image has it."""
    samples = drawn(colour, bits)
    key = tuple(samples[place].tolist())
    samples[::2] = key
    samples[2, 3, -1] ^= 1
    samples[4, 5, 0] ^= 2 ** (bits - 1)
    data = written(samples, colour, bits, transparent(*key))
    check(data, laid_on_background(samples, colour, bits, key), 1.5, 1.5 if bits == 16 else 257)


@pytest.mark.parametrize(("colour", "bits"), [(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (COLOUR, 8)])
def test_only_the_low_bits_of_a_transparent_colour_count(colour: int, bits: int) -> None:
    samples = drawn(colour, bits)
    key = tuple(samples[3, 3].tolist())
    data = written(samples, colour, bits, transparent(*(value | 0xFFFF << bits & 0xFFFF for value in key)))
    check(data, laid_on_background(samples, colour, bits, key))


def test_a_transparent_colour_that_does_not_occur() -> None:
    samples = np.full((4, 4, 1), 3)
    assert (decode_image(written(samples, GREY, 2, transparent(2)), "x") == 255).all()
    assert (decode_image(written(samples, GREY, 2, transparent(3)), "x", background=BACKGROUND) == BACKGROUND).all()


@pytest.mark.parametrize("alphas", [b"\0", b"\xff\0", b"\x80", b"\0\x40\xff\xc0", b"\xff\xff", b"\x01\0\0"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_partial_alpha(bits: int, alphas: bytes) -> None:
    alphas = alphas[: 2**bits]
    samples = drawn(PALETTE, bits)
    palette = np.random.default_rng(9).integers(0, 256, (2**bits, 3))
    alpha = np.append(np.frombuffer(alphas, np.uint8), np.full(2**bits, 255))[: 2**bits] / 255
    data = written(samples, PALETTE, bits, chunk(b"PLTE", palette.astype(np.uint8).tobytes()), chunk(b"tRNS", alphas))
    check(data, over(palette[samples[:, :, 0]] / 255, alpha[samples[:, :, 0]]))


def test_sixteen_bits_beside_transparency() -> None:
    """1000 and 1001 are 3.89 and 3.9 of 255."""
    opaque = np.array([[[1000, 65535], [1001, 65535], [7, 0], [40000, 32768]]])
    grey = decode_image(written(opaque, GREY_ALPHA, 16), "x", channels=1, bit_depth=16, background=(10, 10, 10))
    assert grey[0, :, 0].tolist() == [1000, 1001, 2570, round((40000 * 32768 + 2570 * 32767) / 65535)]
    keyed = written(np.array([[[1000], [1001], [1000 ^ 0x100], [65534]]]), GREY, 16, transparent(1001))
    grey = decode_image(keyed, "x", channels=1, bit_depth=16, background=(10, 10, 10))
    assert grey[0, :, 0].tolist() == [1000, 2570, 1000 ^ 0x100, 65534]
    assert decode_image(keyed, "x", channels=1, background=(10, 10, 10))[0, :, 0].tolist() == [4, 10, 3, 255]


def test_sixteen_bits_of_colour_are_kept_as_grey_levels() -> None:
    equal = np.repeat(np.array([[[0], [1000], [1001], [65535]]]), 3, axis=2)
    for samples, colour in ((equal, COLOUR), (np.insert(equal, 3, 65535, axis=2), COLOUR_ALPHA)):
        grey = decode_image(written(samples, colour, 16), "x", channels=1, bit_depth=16)
        assert grey[0, :, 0].tolist() == [0, 1000, 1001, 65535]


@pytest.mark.parametrize(
    ("colour", "bits", "chunks", "form"),
    [
        (GREY, 2, [], ImageForm(1, 8)),
        (GREY, 4, [transparent(1)], ImageForm(1, 8, ("its transparency laid on white",))),
        (GREY, 16, [], ImageForm(1, 16)),
        (GREY_ALPHA, 16, [], ImageForm(1, 16, ("its transparency laid on white",))),
        (COLOUR, 16, [], ImageForm(3, 8, ("8 of its 16 bits a sample",))),
        (COLOUR_ALPHA, 16, [], ImageForm(3, 8, ("8 of its 16 bits a sample", "its transparency laid on white"))),
        (COLOUR_ALPHA, 8, [], ImageForm(3, 8, ("its transparency laid on white",))),
    ],
)
def test_the_form_that_holds_the_most(colour: int, bits: int, chunks: list[bytes], form: ImageForm) -> None:
    assert natural_form(written(drawn(colour, bits), colour, bits, *chunks), "x") == form


# -- what lies beside the pixels -------------------------------------------------------------------

SAMPLES = drawn(COLOUR, 8)
PLAIN = written(SAMPLES, COLOUR, 8)
LARGE = zlib.compress(bytes(2**21))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
TURNED = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, 3, 0) + bytes(4))
BESIDE = {
    "compressed text": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "profile": chunk(b"iCCP", b"mine\0\0" + LARGE),
    "unknown compression of a text": chunk(b"zTXt", b"Comment\0\7x"),
    "unknown compression of a profile": chunk(b"iCCP", b"mine\0\7x"),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0"),
    "short resolution": chunk(b"pHYs", b"\0"),
    "short animation": chunk(b"acTL", b"\0"),
}


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_lies_beside_the_pixels_damages_none(beside: bytes, is_after: bool) -> None:
    data = written(SAMPLES, COLOUR, 8, after=beside) if is_after else written(SAMPLES, COLOUR, 8, beside)
    np.testing.assert_array_equal(decode_image(data, "x"), SAMPLES)
    assert natural_form(data, "x") == ImageForm(3, 8)
    for length in range(0, len(data), 1 + len(data) // 200):
        with pytest.raises(InputError):
            decode_image(data[:length], "x")


@pytest.mark.parametrize(
    "turned",
    [
        TURNED,
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ],
    ids=["EXIF", "XMP", "compressed XMP"],
)
def test_an_orientation_beside_a_large_text(turned: bytes) -> None:
    data = written(SAMPLES, COLOUR, 8, BESIDE["compressed text"], turned)
    np.testing.assert_array_equal(decode_image(data, "x"), SAMPLES[::-1, ::-1])


def test_transparency_beside_a_large_text() -> None:
    samples = drawn(GREY, 16)
    key = (int(samples[1, 1, 0]),)
    data = written(samples, GREY, 16, BESIDE["profile"], transparent(*key))
    check(data, laid_on_background(samples, GREY, 16, key), 1.0, 1.5)


@pytest.mark.parametrize("key", [b"Comment", b"XML:com.adobe.xmp"])
def test_a_text_that_would_fill_the_memory(key: bytes) -> None:
    deflater = zlib.compressobj(1)
    bomb = b"".join(deflater.compress(bytes(2**20)) for _ in range(32)) + deflater.flush()
    data = written(SAMPLES, COLOUR, 8, chunk(b"iTXt", key + b"\0\1\0\0\0" + bomb))
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(decode_image(data, "x"), SAMPLES)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_damaged_text_is_damage() -> None:
    damaged = bytearray(written(SAMPLES, COLOUR, 8, BESIDE["compressed text"]))
    damaged[60] ^= 1
    with pytest.raises(InputError, match="damaged or cut off"):
        decode_image(bytes(damaged), "x")


def test_no_pixels_at_all() -> None:
    data = PLAIN[:33] + chunk(b"IEND", b"")
    with pytest.raises(InputError, match=r"x is damaged or cut off \(it has no pixels\)"):
        decode_image(data, "x")


def test_what_is_written_by_hand_is_what_pillow_reads() -> None:
    for interlaced in (False, True):
        with Image.open(io.BytesIO(written(SAMPLES, COLOUR, 8, interlaced=interlaced))) as image:
            np.testing.assert_array_equal(np.asarray(image), SAMPLES)
