"""``freqgan style``: images with the colours and textures of others, by bands or by the features of VGG19."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from torch import Tensor

from cluster.data.image_folders import Listing, is_zip, list_images, open_images
from cluster.imaging.natural import read_natural
from cluster.imaging.pictures import encode_png, to_image
from cluster.storage.folder import open_folder, split_object
from freqgan.errors import InputError, counted
from freqgan.generation.style_by_bands import Advance, Styled, blended, style_by_bands, style_mask
from freqgan.generation.style_options import STEPS, STYLE_WEIGHT, StyleOptions
from freqgan.pixels import to_eight_bits, to_pixels
from launch.commands.shards import names_text, progress_bar
from launch.console.text import images_text
from launch.drawing.side_by_side import SHEET, SHOWN, picture_names, write_sheet

Note = Callable[[str], None]
LONGEST_STEM = 60
"""Letters of a name that are taken into that of a result: a file system takes 255 bytes."""


class Picture(NamedTuple):
    """An image file: its name for messages, its name without folders, and its bytes."""

    url: str
    name: str
    read: Callable[[], bytes]

    @property
    def stem(self) -> str:
        """What results are named by."""
        return self.name.rpartition(".")[0][:LONGEST_STEM]

    def pixels(self) -> Tensor:
        """Return (1, C, H, W): uint8 of grey or colour, or uint16 of grey, as the file holds them.

        Raises:
            InputError: it is no image, or damaged.

        """
        return read_natural(self.read(), self.url).pixels


Method = Callable[[Tensor, Tensor, Tensor | None, Advance], Styled]
"""From stored pixels of content and style, and a mask (1, 1, H, W) in [0, 1], to the result."""


def style_command(
    content: str, style: str, *, out: str, mask: str | None, options: StyleOptions, note: Note
) -> list[str]:
    """Write every content with every style, and a sheet of the first 16; return lines that say what was written.

    ``content`` and ``style`` are images, or folders or zips of some. ``mask`` is an image, white where the style goes.
    ``note`` is told of files passed over, and which file of weights is used.

    Raises:
        InputError: images, a mask, weights or a folder that cannot be used, or options that do not fit them.

    """
    with open_pictures(content, note) as contents, open_pictures(style, note) as styles:
        folder = open_folder(out)
        folder.check_writable()
        method = partial(style_by_bands, options) if options.method == "bands" else _by_features(options, note)
        pairs = list(itertools.product(contents, styles))
        names = picture_names([f"{content.stem}-as-{style.stem}.png" for content, style in pairs])
        white = None if mask is None else _file(mask).pixels()
        lines, rows = [], []
        with progress_bar("styling") as advance:
            for number, (name, pair) in enumerate(zip(names, pairs, strict=True)):
                before, texture = (picture.pixels() for picture in pair)
                styled = method(before, texture, _mask(white, mask, before, pair[0].url), _part(advance, number, pairs))
                folder.write(f"{name}.png", encode_png(to_image(styled.pixels[0].numpy())))
                lines.append(f"{name}.png: {styled.text}")
                if number < SHOWN:
                    rows.append([to_eight_bits(x)[0].numpy() for x in (before, texture, styled.pixels)])
        write_sheet(folder, ("content", "style", "result"), rows)
    return [*_few(lines), f"{images_text(len(pairs))} and {SHEET} in {folder.url}"]


def _few(lines: Sequence[str]) -> list[str]:
    return list(lines) if len(lines) <= SHOWN else [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more"]


def _part(advance: Advance, number: int, pairs: Sequence[object]) -> Advance:
    """Return what is told the progress of one of ``pairs``, and tells ``advance`` that of all."""
    return lambda done, total: advance(number * total + done, len(pairs) * total)


# -- images ----------------------------------------------------------------------------------------


@contextmanager
def open_pictures(source: str, note: Note) -> Iterator[list[Picture]]:
    """Yield the image file ``source``, or those of a folder or zip of that name; ``note`` is told of other files.

    Raises:
        InputError: there is no such file or folder, or no image in it.

    """
    if not is_zip(source) and not open_folder(source).is_there():
        yield [_file(source)]
        return
    with open_images(source) as files:
        listed = list_images(files, with_classes=False)
        if others := _passed_over(listed):
            note(f"{source}: {others}")
        yield [
            Picture(f"{name} in {files.url}", name.rpartition("/")[2], partial(files.read, name))
            for name in listed.images
        ]


def _file(url: str) -> Picture:
    folder, name = split_object(url)
    if not folder.exists(name):
        raise InputError(f"there is no file or folder {url}: give a JPEG, PNG or WebP image, or a folder of some")
    return Picture(url, name, partial(folder.read, name))


def _passed_over(listed: Listing) -> str:
    kinds = [counted(number, f"{kind} file") for kind, number in (("hidden", listed.hidden), ("other", listed.others))]
    passed = [text for text in kinds if not text.startswith("0 ")]
    passed += [f"{names_text(listed.returning)} (back to folders that are read anyway)"] if listed.returning else []
    return f"passed over {', '.join(passed)}" if passed else ""


def _mask(white: Tensor | None, url: str | None, content: Tensor, name: str) -> Tensor | None:
    """Return the mask (1, 1, H, W) in [0, 1]; InputError where it has not the size of ``content`` or is all black."""
    return None if white is None else style_mask(white, f"--mask {url}", content, name)


# -- methods ---------------------------------------------------------------------------------------


def _by_features(options: StyleOptions, note: Note) -> Method:
    from cluster.run.vgg_file import load_vgg19
    from cluster.stages.devices import choose_device
    from freqgan.generation.neural_style import transfer_style
    from freqgan.networks.vgg import network_input

    assert options.vgg is not None  # checked with the options
    device = choose_device("auto")
    network = load_vgg19(options.vgg, note, "average").to(device)
    steps = STEPS if options.steps is None else options.steps
    weight = STYLE_WEIGHT if options.style_weight is None else options.style_weight

    def run(content: Tensor, style: Tensor, mask: Tensor | None, advance: Advance) -> Styled:
        before, texture = (network_input(x).expand(-1, 3, -1, -1).to(device) for x in (content, style))
        styled = transfer_style(network, before, texture, steps=steps, style_weight=weight, advance=advance)
        result = blended(before.cpu(), styled.image.cpu(), mask)
        first, last = styled.first, styled.last
        text = (
            f"loss of content {first.content:.3g} -> {last.content:.3g}, of style {first.style:.3g} -> {last.style:.3g}"
        )
        return Styled(to_pixels(2 * result - 1), text)

    return run
