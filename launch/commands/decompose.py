"""``freqgan decompose``: one image taken apart, its bands as a picture and as numbers, and put together again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.table import Table
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.data.decoding import ImageForm, Pixels, decode_image, natural_form
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.bands import Band, SubImages, parse_band
from freqgan.errors import InputError
from freqgan.model.band_statistics import STD_FLOOR
from freqgan.pixels import from_pixels, to_pixels
from freqgan.transforms import BandTransform, parse_transform
from freqgan.transforms.protocol import LOW_RANGE
from launch.console.tables import plain_console
from launch.drawing.grids import DETAIL_RANGE, band_picture, encode_png, to_image

MOSAIC, BANDS, RECONSTRUCTION = "mosaic.png", "bands.safetensors", "reconstruction.png"
LEAST_SIDE = 512
"""Pictures of smaller images are enlarged to about this many pixels."""
COLUMNS = 100


def decompose_command(
    image: str, *, transform: str, levels: int, packets: Mapping[int, int], out: str, reconstruct: bool
) -> list[str]:
    """Write the mosaic and the bands of an image file into ``out``; return lines that say what they are.

    With ``reconstruct`` the bands are read again, put together, and held against the image.

    Raises:
        InputError: an image, a transform or a folder that cannot be used.

    """
    folder, name = split_object(image)
    data = folder.read(name)
    form = natural_form(data, image)
    pixels = decode_image(data, image, channels=form.channels, bit_depth=form.bit_depth)
    band_transform = parse_transform(transform, levels, packets)
    target = open_folder(out)
    target.check_writable()
    stored = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    exact = from_pixels(stored).double()
    bands = band_transform.analyse(exact)
    size = (pixels.shape[0], pixels.shape[1])
    scale = max(1, LEAST_SIDE // max(size))
    pictures = {band: _visible(band, x) for band, x in bands.items()}
    target.write(MOSAIC, encode_png(band_picture(band_transform, size, pictures, scale)))
    coefficients = _without_repetition(band_transform, bands)
    target.write(BANDS, save_tensors({str(band): x.contiguous() for band, x in coefficients.items()}))
    lines = [
        f"{image}: {size[1]} x {size[0]} pixels, {form.channels} channels, {form.bit_depth} bits{_changes(form)}; "
        f"{band_transform.spec}, {levels} levels",
        _table(band_transform, coefficients, exact),
        f"{MOSAIC} and {BANDS} (float64, for pixels in [-1, 1]) in {target.url}",
    ]
    return lines + (_reconstructed(band_transform, target, stored, form) if reconstruct else [])


def _changes(form: ImageForm) -> str:
    """Return what was read otherwise than the file holds it."""
    return f" (read with {', '.join(form.changes)})" if form.changes else ""


def _without_repetition(transform: BandTransform, bands: SubImages) -> SubImages:
    """Return the bands in the order of the chain: the high bands, and LL of the coarsest level."""
    held = [b for b in transform.bands() if b.orientation != "LL" or b.level == transform.levels]
    return {band: bands[band] for band in held}


def _visible(band: Band, x: Tensor) -> Pixels:
    """Return (1, C, h, w) as 8 bits.

    A low band is in the range of the pixels, a high one around grey, by its own deviation.
    """
    if band.orientation == "LL":
        return to_pixels(x / LOW_RANGE**band.level)[0].numpy()
    deviation = x.square().mean().sqrt().clamp(min=STD_FLOOR)
    return to_pixels(x / (DETAIL_RANGE * deviation))[0].numpy()


def _table(transform: BandTransform, bands: SubImages, image: Tensor) -> str:
    table = Table()
    for heading in ("band", "size", "mean", "deviation", "largest", "share of energy"):
        table.add_column(heading, justify="left" if heading == "band" else "right")
    energies = {band: float(x.square().sum()) for band, x in bands.items()}
    energy = max(sum(energies.values()), 1e-12)
    for band, x in bands.items():
        height, width = x.shape[-2:]
        numbers = (float(x.mean()), float(x.std(correction=0)), float(x.abs().max()))
        share = f"{100 * energies[band] / energy:.2f} %"
        table.add_row(str(band), f"{width} x {height}", *(f"{number:.4g}" for number in numbers), share)
    console = plain_console(COLUMNS)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _reconstructed(transform: BandTransform, folder: Folder, stored: Tensor, form: ImageForm) -> list[str]:
    """Put the stored bands together."""
    same = "every pixel is as it was" + (" read" if form.changes else "")
    tensors = load_tensors(folder.read(BANDS))
    bands = {parse_band(name): tensor for name, tensor in tensors.items()}
    back = transform.synthesise(bands, (stored.shape[-2], stored.shape[-1]))
    error = float((back - from_pixels(stored).double()).abs().max())
    pixels = to_pixels(back, form.bit_depth)
    different = int((pixels.to(torch.int64) != stored.to(torch.int64)).sum())
    folder.write(RECONSTRUCTION, encode_png(to_image(pixels[0].numpy())))
    return [
        f"{RECONSTRUCTION}: largest error {error:.2g} of a range of 2; "
        + (f"{different} of {pixels.numel()} values differ" if different else same)
    ]


def parse_packets(text: str) -> dict[int, int]:
    """Return {1: 1, 2: 2} for "1=1,2=2"; InputError for anything else."""
    times_by_level: dict[int, int] = {}
    for part in filter(None, text.split(",")):
        level, separator, times = part.partition("=")
        if not (separator and level.strip().isdecimal() and times.strip().isdecimal()):
            raise InputError(f"--packets {text}: write LEVEL=TIMES, for example 1=1 or 1=2,2=1")
        if int(level) in times_by_level:
            raise InputError(f"--packets {text}: level {int(level)} is given twice; give every level once")
        times_by_level[int(level)] = int(times)
    return times_by_level
