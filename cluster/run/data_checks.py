"""Whether shards hold what the settings of a run ask for: seen before the first step, and said with the remedy."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from cluster.data.settings import ImagePolicy
from cluster.data.shard_index import INDEX_NAME, check_image
from cluster.data.shards import Sample, Shard, ShardSet
from cluster.data.stored_images import check_kind, frames_of
from cluster.data.targets import sample_fields, stored_files
from cluster.formats.meaning import OFFSET, SLOPE, UNIT, Meaning, check_bits, size_of
from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import FreqganError, InputError

_TRIED = 8
"""Images that are looked at before it is given up to meet one that is sound."""


def check_labels(classes: int, index: ShardSet) -> None:
    """Raise InputError unless every image has a label below ``classes`` that means one thing; with 0 none is needed."""
    if not classes:
        return
    label = index.ambiguous_label
    if label is not None:
        names = ", ".join(f"{listed[label]!r} in {url}" for url, listed in index.classes.items() if label < len(listed))
        raise InputError(
            f"classes: label {label} is {names}; set classes=0 to ignore labels, or pack the images of both together"
        )
    for shard in index.shards:
        for sample in shard.samples:
            if sample.label is None or not 0 <= sample.label < classes:
                raise InputError(
                    f"classes: {classes} classes were asked for and {sample.image_name} in {shard.url} has "
                    f"{'no label' if sample.label is None else f'label {sample.label}'}; "
                    f"set classes=0 to ignore labels, or give every image a .cls from 0 to {classes - 1}"
                )


def check_values(index: ShardSet, bit_depth: BitDepth) -> None:
    """Raise InputError where indexes say different things of what stored numbers mean, or something that is none.

    A model of 32 bits is shown values, so that offset and slope may differ, and the unit may not.
    """
    compared = (UNIT,) if bit_depth == FLOAT_BITS else (OFFSET, SLOPE, UNIT)
    for url, values in index.values.items():
        name = f"values in {url}/{INDEX_NAME}"
        Meaning.of(values, name)
        size_of(values, name)
        check_bits(values, name)
    (first, known), *others = index.values.items() or [("", {})]
    for url, values in others:
        if any(values.get(member) != known.get(member) for member in compared):
            raise InputError(
                f"data: numbers in {first} are {_meaning_text(known)}, and in {url} {_meaning_text(values)}: pack the "
                "scans of both together, or train on one of them"
            )


def check_first_image(index: ShardSet, policy: ImagePolicy) -> None:
    """Raise InputError where the first sound image is of another kind than ``policy`` wants: frames, channels, floats.

    Of images that are damaged nothing is said: that is met when they are trained on.
    """
    for shard, sample in islice(_samples(index), _TRIED):
        name = f"{sample.image_name} in {shard.url}"
        try:
            image, fields = _read(shard, sample, name)
        except FreqganError:
            continue
        check_kind(image, name, policy, fields)
        return


def _read(shard: Shard, sample: Sample, name: str) -> tuple[bytes, Mapping[str, Any]]:
    """Return the bytes of an image and the fields beside it; FreqganError where one of them is damaged."""
    files = stored_files(shard, sample)
    image = files.read(sample.offset, sample.size_bytes)
    if sample.crc32 is not None and zlib.crc32(image) != sample.crc32:
        raise InputError(f"{name} is not what was indexed")
    check_image(image, name)
    fields = sample_fields(files)
    frames_of(fields, name)
    return image, fields


def _samples(index: ShardSet) -> Iterator[tuple[Shard, Sample]]:
    return ((shard, sample) for shard in index.shards for sample in shard.samples)


def _meaning_text(values: Mapping[str, Any]) -> str:
    """Return "in HU, with offset -1024 and slope 1"."""
    unit = f"in {values[UNIT]}" if values.get(UNIT) else "in no known unit"
    known = SLOPE in values and OFFSET in values
    return unit + (f", with offset {values[OFFSET]:g} and slope {values[SLOPE]:g}" if known else "")
