"""What a chain of bands can do that one generator cannot: finish a small image, redraw or weigh single bands.

Chains of flow experts do it with real images as well: ``encode`` returns the noises that an image is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from freqgan.bands import TIME_LOW, Band, SubImages, parse_band
from freqgan.errors import InputError, nearest
from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.sizes import width_by_height
from freqgan.transforms import BandTransform, ClipTransform
from freqgan.transforms.protocol import LOW_RANGE


@torch.no_grad()
def super_resolve(synthesiser: Synthesiser, low: Tensor, level: int, draws: Draws) -> Tensor:
    """Return images (B, C, N, N) whose coarse picture is ``low`` and whose detail the chain makes up.

    Args:
        synthesiser: the model.
        low: LL of ``level`` in pixel range, (B, C, h, h) in [-1, 1] with h = N / 2^level: the low band over 2^level.
        level: the GANs of this level's high bands and of all finer levels are run.
        draws: noises, targets and choices for B samples.

    With strict nesting the low band of the result is ``low`` to rounding; refiners, where the plan has them, correct
    the low bands of finer levels, and with them this one.

    Raises:
        InputError: ``low`` has not the size of that level, or no GAN makes detail there.

    """
    chain = synthesiser.chain
    size = chain.band_size(level)
    if low.shape[-2:] != size:
        given, wanted = width_by_height(low.shape[-2:]), width_by_height(size)
        raise InputError(f"the low band of level {level} has {wanted} pixels, not {given}")
    fixed = known_bands(synthesiser, low, level)
    if all(set(gan.bands) <= fixed.keys() for gan in chain.plan.gans):
        raise InputError(
            f"the model has no GAN for the bands of level {level} or finer: nothing can be made up; take a model with "
            "experts of bands (system=bands)"
        )
    return chain.image(synthesiser.run_chain(draws, fixed))


def known_bands(synthesiser: Synthesiser, low: Tensor, level: int) -> SubImages:
    """Return LL of ``level`` and every coarser band, normalised, of images whose coarse picture is ``low``.

    They are the transform of ``low`` (B, C, h, h) itself; see :func:`super_resolve`.
    """
    chain, raw = synthesiser.chain, dict[Band, Tensor]()
    for time, part in chain.transform.split_time(low * LOW_RANGE**level).items():
        raw[Band(level, "LL", time)] = part
        for coarser in range(level + 1, synthesiser.settings.levels + 1):
            parts = chain.transform.analyse_level(raw[Band(coarser - 1, "LL", time)], coarser)
            orientations = chain.transform.orientations(coarser)
            raw |= {Band(coarser, o, time): x for o, x in zip(orientations, parts, strict=True)}
    return {band: chain.statistics.normalise(band, x) for band, x in raw.items()}


@torch.no_grad()
def slow_down(synthesiser: Synthesiser, slow: Tensor, draws: Draws) -> Tensor:
    """Return clips (B, T C, N, N) whose averages of neighbouring frames are ``slow``, and whose changes are made up.

    Args:
        synthesiser: a model of clips that are split by Haar's wavelet in time.
        slow: clips of T / 2^k frames, (B, T / 2^k C, N, N) in [-1, 1], k from 1 to the model's ``time_levels``: each
            frame is the average of 2^k of the clip that is made.
        draws: noises, targets and choices for B samples.

    The averages are exact, to rounding.

    Raises:
        InputError: the model makes images, splits time by another wavelet, or ``slow`` has no such number of frames.

    """
    chain, settings = synthesiser.chain, synthesiser.settings
    known = known_averages(synthesiser, slow)
    fixed = {band: chain.statistics.normalise(band, x) for band, x in known.items()}
    if not any(set(gan.bands) - fixed.keys() for gan in chain.plan.gans):
        raise InputError(f"the model has no experts of changes: clips of {settings.frames} frames cannot be made of it")
    return chain.image(synthesiser.run_chain(draws, fixed))


def known_averages(synthesiser: Synthesiser, slow: Tensor) -> SubImages:
    """Return all bands that clips have whose averages of frames are ``slow`` (B, T / 2^k C, N, N).

    See :func:`slow_down`.
    """
    settings, transform = synthesiser.settings, synthesiser.chain.transform
    fits = [settings.frames >> k for k in range(1, settings.time_depth + 1)] if settings.frames > 1 else []
    if not isinstance(transform, ClipTransform) or transform.wavelet != "haar" or not fits:
        raise InputError(
            "the model does not split clips in time by Haar's wavelet, whose averages those of frames are: use a model "
            "with frames above 1 and time_wavelet=haar"
        )
    frames, rest = divmod(slow.shape[1], settings.channels)
    if rest or frames not in fits:
        raise InputError(
            f"a clip of {slow.shape[1]} planes is none of {' or '.join(map(str, fits))} frames with "
            f"{settings.channels} channels, from which this model makes {settings.frames}"
        )
    halvings = (settings.frames // frames).bit_length() - 1
    rest_of_time = ClipTransform(transform.still, frames, settings.time_depth - halvings)
    bands = rest_of_time.analyse(slow * math.sqrt(2) ** halvings)
    return {_slower(band, halvings): x for band, x in bands.items()}


def _slower(band: Band, halvings: int) -> Band:
    """Return the band of a clip that ``band`` of its averages over 2^halvings frames is."""
    if band.time == TIME_LOW:
        return band
    return band._replace(time=f"tH{int(band.time.removeprefix('tH')) + halvings}")


def low_band(synthesiser: Synthesiser, images: Tensor, level: int) -> Tensor:
    """Return LL of ``level`` of images (B, C, N, N) in pixel range: what :func:`super_resolve` takes."""
    transform = synthesiser.chain.transform
    bands = transform.analyse(images)
    return transform.merge_time({time: bands[Band(level, "LL", time)] for time in transform.times}) / LOW_RANGE**level


@torch.no_grad()
def redraw(synthesiser: Synthesiser, draws: Draws, bands: Sequence[str], other: Draws) -> Tensor:
    """Return the images (B, C, N, N) of ``draws`` with ``bands`` made anew from the noises of ``other``.

    All other bands stay as they are.

    Refiners of levels finer than a redrawn band are run again with their own noise: the low bands they make are
    corrections of the bands below.

    Args:
        synthesiser: the model.
        draws: what the images are made of.
        bands: names of bands that have a GAN.
        other: as many samples.

    Raises:
        InputError: a band that no GAN makes.

    """
    chain = synthesiser.chain
    before = synthesiser.draw(draws)
    redrawn = _named(bands, list(before.sub_images) if chain.plan.gans else [])
    coarsest = {time: max(b.level for b in redrawn if b.time == time) for time in {b.time for b in redrawn}}
    fixed = {
        band: x
        for band, x in before.sub_images.items()
        if band not in redrawn and not (band.orientation == "LL" and band.level < coarsest.get(band.time, 0))
    }
    takes = {gan.name: bool(set(gan.bands) & set(redrawn)) for gan in chain.plan.gans}
    by_gan = torch.tensor([*takes.values()] or [False], device=draws.noises.device)[:, None, None]
    mixed = draws._replace(
        noises=torch.where(by_gan, other.noises, draws.noises),
        choices={band: (other if band in redrawn else draws).choices[band] for band in draws.choices},
        rests={name: (other if takes.get(name) else draws).rests[name] for name in draws.rests},
    )
    if not chain.plan.gans:
        return before.images
    return synthesiser.blended(synthesiser.run_chain(mixed, fixed), before.conventional).images


@torch.no_grad()
def encode(
    synthesiser: Synthesiser, images: Tensor, targets: Tensor | None = None, seed: int = 0, block: int = 0
) -> Draws:
    """Return the draws from which ``synthesiser.draw`` makes ``images``.

    Each flow expert's steps, as the settings' ``generation`` has them, are undone under the real bands before it. Of an
    ensemble every member is, so that it does not matter which one is chosen.

    Args:
        synthesiser: a model whose experts are all flows, and generate every band.
        images: (B, C, N, N) in [-1, 1]; at most 64, whose draws belong together.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        seed: of the noise on conditions, where ``generation`` has such, and of the choice within ensembles.
        block: number of these images among several lots of one seed.

    Raises:
        InputError: the model has GANs, lacks an expert for a band, or has targets and none are given.
        RunError: a step of the solver is too long to be undone.

    """
    check_encodable(synthesiser)
    chain, batch = synthesiser.chain, len(images)
    if synthesiser.settings.target_layout and targets is None:
        raise InputError("the model has targets: say of which class, or of which target, the images are")
    images = images.to(chain.device)
    length = synthesiser.settings.noise.dimensions
    noises = torch.zeros(len(chain.plan.gans), batch, length, device=chain.device)
    own_targets = targets.to(chain.device) if targets is not None and synthesiser.settings.target_layout else None
    draws = Draws(noises, own_targets, chain.choices(seed, block, batch), {}, seed, block)
    real = synthesiser.analysed(images)
    for number, gan in enumerate(chain.plan.gans):
        flow = synthesiser.flows[gan.name]
        condition, strength = synthesiser.flow_condition(gan, real, draws)
        noise = flow.encode(chain.stacked(gan, real), condition, strength, own_targets, synthesiser.settings.generation)
        vector, draws.rests[gan.name] = flow.numbers(noise)
        noises[number, :, : vector.shape[1]] = vector  # further numbers of a longer vector have no effect
    return draws


def check_encodable(synthesiser: Synthesiser) -> None:
    """Raise InputError unless every number of an image is made by a flow expert."""
    chain = synthesiser.chain
    gans = [gan.name for gan in chain.plan.gans if gan.kind == "gan"]
    if synthesiser.image is not None:
        gans.append("the image stage's generator")
    if synthesiser.fusion is not None:
        gans.append("what system=fusion trains")
    if gans or not chain.plan.gans:
        raise InputError(
            f"images can be encoded by flow experts alone, and {', '.join(gans)} of this model "
            f"{'is a GAN' if len(gans) == 1 else 'are GANs'}: a GAN's noise cannot be found; use a model trained with "
            "experts.default=flow and image_stage.enabled=false"
        )
    if students := [gan.name for gan in chain.plan.gans if gan.kind == "student"]:
        raise InputError(
            f"images can be encoded by flow experts alone, and {', '.join(students)} of this model are students, whose "
            "one step need not lead back: encode with the run of their teacher"
        )
    made = {band for gan in chain.plan.gans for band in gan.bands}
    needed = chain.transform.independent_bands()
    if missing := [str(band) for band in needed if band not in made]:
        raise InputError(
            f"no expert of this model generates {', '.join(missing)}, so images that have anything there cannot be "
            "encoded; train one with plan.bands=all"
        )


def weigh(synthesiser: Synthesiser, images: Tensor, gains: Mapping[str, float]) -> Tensor:
    """Return ``images`` (B, C, N, N) with the coefficients of each named band times its gain, all others as they are.

    A gain of a low band acts on everything coarser. Bands are all of those of the model's transform; of clips, a
    temporal band (tH1) stands for all of its bands.

    Raises:
        InputError: a band that is not there; a gain that is no finite number, or makes pixels that are none.

    """
    if wrong := {name: gain for name, gain in gains.items() if not math.isfinite(gain)}:
        raise InputError(f"gains {wrong} are no finite numbers: give for example HH1=1.5")
    transform, (height, width) = synthesiser.chain.transform, synthesiser.chain.size
    bands = transform.analyse(images)
    times = {name: gain for name, gain in gains.items() if name and name in transform.times}
    factors = {band: gains[str(band)] for band in _named([name for name in gains if name not in times], list(bands))}
    parts = {
        time: _weighed({b: x for b, x in bands.items() if b.time == time}, factors, transform) * times.get(time, 1.0)
        for time in transform.times
    }
    weighed = transform.merge_time(parts)
    if not torch.isfinite(weighed).all():
        raise InputError(f"gains {dict(gains)} are so large that pixels are no numbers any more: give smaller ones")
    return weighed[..., :height, :width]


def _weighed(bands: SubImages, factors: Mapping[Band, float], transform: BandTransform) -> Tensor:
    """Return the finest low band of ``bands``, those of one temporal band, times their factors."""
    lowest = max((band for band in bands if band.orientation == "LL"), key=lambda band: band.level)
    low = bands[lowest]
    for level in range(lowest.level, 0, -1):
        low = low * factors.get(lowest._replace(level=level), 1.0)
        high = [band for band in bands if band.level == level and band.orientation != "LL"]
        low = transform.synthesise_onto(low, {band: bands[band] * factors.get(band, 1.0) for band in high}, level)
    return low


def layers(synthesiser: Synthesiser, images: Tensor) -> SubImages:
    """Return what each band adds to ``images`` (B, C, N, N): images of that shape, by band, that add up to these.

    Bands are LL of the coarsest level and all high ones. The transform is linear, so that the sum of layers times
    gains is what :func:`weigh` makes with these.
    """
    transform = synthesiser.chain.transform
    bands, parts = transform.analyse(images), transform.independent_bands()
    return {
        band: transform.synthesise(
            {other: bands[other] if other == band else torch.zeros_like(bands[other]) for other in parts},
            synthesiser.chain.size,
        )
        for band in parts
    }


def _named(names: Sequence[str], known: Sequence[Band]) -> list[Band]:
    """Return the bands called ``names``, a temporal band as all of its bands; InputError for what is not known."""
    texts = [str(band) for band in known]
    times = {band.time for band in known if band.time}
    names = [
        text
        for name in names
        for text in ([text for text in texts if text.startswith(f"{name}.")] if name in times else [name])
    ]
    for name in names:
        if name not in texts:
            known_names = ", ".join(texts) if texts else "none: the model has no GANs of bands"
            raise InputError(f"no band is called {name!r}{nearest(name, texts)}; there are {known_names}")
    return [parse_band(name) for name in names]
