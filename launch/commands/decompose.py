"""``freqgan decompose``: one image taken apart, its bands as a picture and as numbers, and put together again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.table import Table
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cluster.data.decoding import ImageForm
from cluster.imaging.decomposition import Decomposition, decompose
from cluster.imaging.natural import read_natural
from cluster.imaging.pictures import encode_png, to_image
from cluster.storage.folder import Folder, open_folder, split_object
from freqgan.bands import parse_band
from freqgan.pixels import from_pixels, to_pixels
from freqgan.transforms import BandTransform, parse_transform
from launch.console.tables import plain_console

MOSAIC, BANDS, RECONSTRUCTION = "mosaic.png", "bands.safetensors", "reconstruction.png"
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
    stored, form = read_natural(folder.read(name), image)
    band_transform = parse_transform(transform, levels, packets)
    target = open_folder(out)
    target.check_writable()
    parts = decompose(stored, band_transform)
    target.write(MOSAIC, encode_png(parts.picture()))
    target.write(BANDS, save_tensors({str(band): x.contiguous() for band, x in parts.coefficients.items()}))
    lines = [
        f"{image}: {stored.shape[-1]} x {stored.shape[-2]} pixels, {form.channels} channels, {form.bit_depth} bits"
        f"{_changes(form)}; {band_transform.spec}, {levels} levels",
        _table(parts),
        f"{MOSAIC} and {BANDS} (float64, for pixels in [-1, 1]) in {target.url}",
    ]
    return lines + (_reconstructed(band_transform, target, stored, form) if reconstruct else [])


def _changes(form: ImageForm) -> str:
    """Return what was read otherwise than the file holds it."""
    return f" (read with {', '.join(form.changes)})" if form.changes else ""


def _table(parts: Decomposition) -> str:
    table = Table()
    for heading in ("band", "size", "mean", "deviation", "largest", "share of energy"):
        table.add_column(heading, justify="left" if heading == "band" else "right")
    for row in parts.rows():
        numbers = (f"{number:.4g}" for number in (row.mean, row.deviation, row.largest))
        table.add_row(row.band, f"{row.width} x {row.height}", *numbers, f"{100 * row.share:.2f} %")
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
