"""``freqgan generate --mix COARSE FINE --at LEVEL``: the picture of one image with the detail of another."""

from __future__ import annotations

from collections.abc import Callable

from freqgan.errors import InputError, nearest
from freqgan.generation.mixing import TIME, Place, mixed_coefficients, mixed_noises
from freqgan.generation.synthesiser import BLOCK
from freqgan.generation.targets import targets_for
from launch.console.text import images_text
from launch.drawing.side_by_side import SIDE_BY_SIDE, write_side_by_side
from launch.settings.image_request import ImageRequest

WAYS = ("noise", "coefficients")
"""What is mixed: the noise, so that the chain makes detail that fits; or the finished bands, which do not fit."""


def mix(request: ImageRequest, seeds: tuple[int, int], place: Place, way: str, note: Callable[[str], None]) -> str:
    """Write images of the coarse noise of one seed and the fine noise of another, and both beside; return a line.

    Args:
        request: how many images, of which model.
        seeds: of the picture, and of the detail.
        place: the level of the low band up to which the picture is taken; of clips TIME, for motion.
        way: one of :data:`WAYS`.
        note: is told of checkpoints passed over.

    Raises:
        InputError: as of :func:`launch.commands.generate.generate`; a place that the model does not have; more than 64
            images.

    """
    request.refuse("--mix", "seed", "part", "save_vectors")
    count = 1 if request.count is None else request.count
    if way not in WAYS:
        raise InputError(f"--mix-by {way}: no way is called so{nearest(way, list(WAYS))}; there are {', '.join(WAYS)}")
    if count > BLOCK:
        raise InputError(f"--count {count} with --mix: at most {BLOCK} are mixed at once; give fewer")
    opened = request.open(note)
    checkpoint, model, folder, _ = opened
    asked = None
    if request.targets.given:
        asked = targets_for(model, seeds[0], count, request.targets.parts(checkpoint, count))
    coarse, fine = (model.draws(seed, count, asked).scaled(request.truncation) for seed in seeds)
    if way == "noise":
        images = model.draw(mixed_noises(model.chain, coarse, fine, place)).images
    else:
        images = mixed_coefficients(model, coarse, fine, place)
    request.write(opened, [f"{number:05d}" for number in range(count)], images)
    columns = {"coarse": model.draw(coarse).images, "fine": model.draw(fine).images, "mixed": images}
    write_side_by_side(folder, columns, model.settings)
    what = f"the picture of seed {seeds[0]} up to LL{place} and the detail of seed {seeds[1]}"
    if place == TIME:
        what = f"what is in seed {seeds[0]} and how seed {seeds[1]} moves"
    return f"{images_text(count)}, {what} by {way}, and {SIDE_BY_SIDE} in {folder.url}"
