"""The target of an image: one row of numbers, read from what lies beside it in its shard.

A vector comes from its .npy or from fields of its .json, a text from its .txt or from a field, the class from its .cls.
What cannot be read is damage of that image, and is handled as that of pixels is.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.data.settings import MEMBER_EXTENSIONS
from cluster.data.shard_index import damaged
from cluster.data.shard_store import UnusableError
from cluster.data.shards import Sample, Shard, ShardSet
from cluster.formats.arrays import npy_header
from cluster.storage.folder import split_object
from freqgan.errors import FreqganError, InputError, counted, first_line
from freqgan.model.conditioning_settings import ConditioningSettings
from freqgan.seeds import derive_seed
from freqgan.targets import TargetLayout, encoded_caption

NO_LABEL = -1
LABELS = np.iinfo(np.int64)
"""What a batch can hold; one beyond, such as 2**64 - 1, is none (a training with classes refuses it before)."""
MOST_BYTES = 64 * 2**20
"""Of one member; no vector and no text is larger."""

Row = NDArray[np.float32]
Found = TypeVar("Found")

_SEEDS = 2**63
_NUMERIC = "biuf"
_VECTORS, _TEXTS, _FIELDS = MEMBER_EXTENSIONS
_TRIED = 8
"""Samples that are looked at before a training, until what is asked for can be read of one."""


@dataclass(frozen=True)
class SampleFiles:
    """A sample, and how bytes of its shard are read.

    Attributes:
        shard: that it is in.
        sample: of which image.
        read: returns the bytes at (offset, size in bytes).
        number: of the image among all of the data, in the order of the index.

    """

    shard: Shard
    sample: Sample
    read: Callable[[int, int], bytes]
    number: int = 0

    def name_of(self, extension: str) -> str:
        """Return what errors call a member."""
        return f"{self.sample.key}.{extension} in {self.shard.url}"

    def bytes_of(self, extension: str) -> bytes:
        """Return the bytes of a member.

        Raises:
            UnusableError: there is none, or it is too large.
            DamagedError: it is not what was indexed.

        """
        member = self.sample.member(extension)
        if member is None:
            raise UnusableError(f"there is no {self.name_of(extension)}: add it, or remove the image")
        if member.size_bytes > MOST_BYTES:
            raise UnusableError(
                f"{self.name_of(extension)} has {member.size_bytes} bytes, more than the {MOST_BYTES} that are read of "
                "a member: make it smaller"
            )
        data = self.read(member.offset, member.size_bytes)
        if member.crc32 is not None and zlib.crc32(data) != member.crc32:
            raise damaged(
                self.shard, f"{self.sample.key}.{extension} at offset {member.offset} is not what was indexed"
            )
        return data


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of all images of the data, and which of them lie near each other.

    Attributes:
        values: float32 (N, d), of every image in the order of the index.
        neighbours: int32 (N, k), the numbers of the k nearest images of each, itself among them.
        noise: deviation of what is added to features in training.
        mapping: the tensors of the map from what the network sees to features, by name; readers have no use for it.

    """

    values: Row
    neighbours: NDArray[np.int32]
    noise: float = 0.0
    mapping: Mapping[str, Row] = field(default_factory=dict)

    def shown_at(self, number: int, seed: int, position: int) -> Row:
        """Return the features (d,) that training shows with image ``number`` at ``position``: a neighbour's, noisy."""
        near = self.neighbours[number]
        chosen: Row = self.values[near[derive_seed(seed, "neighbour", position) % len(near)]]
        if not self.noise:
            return chosen
        noisy: Row = chosen + np.float32(self.noise) * normal_draws(len(chosen), seed, "feature noise", position)
        return noisy


def normal_draws(count: int, *seed_parts: int | str) -> Row:
    """Return normal draws (count,) that are a pure function of the arguments, by Box and Muller of raw PCG64 output."""
    raw = np.random.PCG64(derive_seed(*seed_parts)).random_raw(2 * count)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    radius, angle = np.sqrt(-2 * np.log(uniform[:count])), 2 * np.pi * uniform[count:]
    draws: Row = (radius * np.cos(angle)).astype(np.float32)
    return draws


@dataclass(frozen=True)
class TargetReader:
    """Reads packed targets; it can be sent to another process, that has no torch.

    Attributes:
        layout: of a target, which is packed.
        settings: where its parts come from.
        seed: of which targets are not shown, and of what is drawn for features.
        training: whether some targets are not shown, and features are those of neighbours; else all are as they are.
        features: of the images; without them their columns are 0.

    """

    layout: TargetLayout
    settings: ConditioningSettings
    seed: int = 0
    training: bool = False
    features: FeatureTable | None = None

    @property
    def members(self) -> tuple[str, ...]:
        """The extensions of the members that are read."""
        return needed_members(self.layout, self.settings)

    def row(self, files: SampleFiles, position: int) -> Row:
        """Return the target (K,) of a sample at ``position`` of the order, see :class:`TargetLayout`.

        Raises:
            UnusableError: a member or a field that is not there, or is no vector or text.
            DamagedError: a member that is not what was indexed.

        """
        row = np.zeros(self.layout.width, np.float32)
        columns = self.layout.columns
        if "label" in columns:
            row[columns["label"]] = label_of(files.sample)
        if "embedding" in columns:
            row[columns["embedding"]] = self._embedding(files)
        if "features" in columns and self.features is not None:
            row[columns["features"]] = self._features(files.number, position)
        if "caption" in columns:
            text = caption_bytes(caption_of(files, self.settings.caption), self.layout.caption)
            row[columns["caption"].start : columns["caption"].start + len(text)] = text
        row[columns["shown"]] = self._is_shown(position)
        return row

    def _embedding(self, files: SampleFiles) -> Row:
        vector = embedding_of(files, self.settings.embedding)
        if len(vector) != self.layout.embedding:
            raise UnusableError(
                f"{_source_name(files, self.settings.embedding)} has {counted(len(vector), 'number')}, "
                f"and conditioning.embedding_length is {self.layout.embedding}: give every image a vector of one length"
            )
        return vector

    def _features(self, number: int, position: int) -> Row:
        assert self.features is not None
        own: Row = self.features.values[number]
        return self.features.shown_at(number, self.seed, position) if self.training else own

    def _is_shown(self, position: int) -> bool:
        if not self.training:
            return True
        return derive_seed(self.seed, "target is shown", position) >= self.settings.drop * _SEEDS


def label_of(sample: Sample) -> int:
    """Return the label of a sample as batches hold it; NO_LABEL where there is none, or one that does not fit."""
    return NO_LABEL if sample.label is None or not LABELS.min <= sample.label <= LABELS.max else sample.label


def needed_members(layout: TargetLayout, settings: ConditioningSettings) -> tuple[str, ...]:
    """Return the extensions of the members that targets are read from.

    Raises:
        InputError: a setting names one from which such a part cannot be read.

    """
    needed = []
    for key, source, is_used, own in (
        ("embedding", settings.embedding, layout.embedding, _VECTORS),
        ("caption", settings.caption, layout.caption, _TEXTS),
    ):
        kind = source.partition(":")[0]
        if is_used and kind not in (own, _FIELDS):
            raise InputError(f"conditioning.{key}: {source!r} cannot be read; give {own}, or json:<field>")
        if is_used:
            needed.append(kind)
    return tuple(dict.fromkeys(needed))


def embedding_of(files: SampleFiles, source: str) -> Row:
    """Return the vector (n,) of a sample from ``source``, "npy" or "json:<fields>"; UnusableError where it is none."""
    kind, _, fields = source.partition(":")
    if kind != _FIELDS:
        vector = vector_in(files.bytes_of(kind), files.name_of(kind))
    else:
        content = _json_of(files)
        vector = np.concatenate([_numbers(_field(content, name, files), name, files) for name in fields.split(",")])
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise UnusableError(
            f"{_source_name(files, source)} holds {vector[place]} at place {place}: every number must be finite, and "
            "fit into float32"
        )
    return vector


def vector_in(data: bytes, name: str) -> Row:
    """Return the numbers of a .npy file in C order, (n,); UnusableError naming ``name`` where it is none."""
    return array_in(data, name).ravel()


def array_in(data: bytes, name: str) -> Row:
    """Return the numbers of a .npy file in its shape (...); UnusableError naming ``name`` where it is none.

    The header is read before anything is allocated, and no object is ever unpickled.
    """
    try:
        header = npy_header(data)
    except Exception as error:  # a header is a Python literal: what is wrong with one may be anything
        raise UnusableError(f"{name} is no .npy file ({error}): write it by numpy.save") from error
    shape, dtype, end = header.shape, header.dtype, header.end
    if dtype.kind not in _NUMERIC:
        raise UnusableError(f"{name} holds {dtype}, no numbers: write floating-point or whole numbers")
    count = math.prod(shape)
    if len(data) - end < count * dtype.itemsize:
        raise UnusableError(f"{name} is cut off: {len(data) - end} bytes of {count} numbers of {dtype}; write it again")
    values = np.frombuffer(data, dtype, count, end).reshape(shape, order="F" if header.in_columns else "C")
    return _as_float32(values)


def _as_float32(values: NDArray[Any]) -> Row:
    """Return ``values`` (...); those beyond the type become infinite, which is refused later."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def caption_of(files: SampleFiles, source: str) -> str:
    """Return the text of a sample from ``source``, "txt" or "json:<fields>"; UnusableError where it is none."""
    kind, _, fields = source.partition(":")
    if kind != _FIELDS:
        text = _text_in(files.bytes_of(kind), files.name_of(kind))
    else:
        content = _json_of(files)
        text = " ".join(_text(_field(content, name, files), name, files) for name in fields.split(","))
    if "\0" in text:
        raise UnusableError(f"the text of {_source_name(files, source)} has a zero byte: save it as UTF-8")
    return text


def caption_bytes(text: str, most: int) -> NDArray[np.uint8]:
    """Return the UTF-8 of ``text`` (n,), without white space at its ends and cut to ``most`` bytes of whole letters."""
    return np.frombuffer(encoded_caption(text, most), np.uint8)


def _text_in(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableError(
            f"{name} is no UTF-8 text (byte {data[error.start]:#04x} at {error.start}): save it as UTF-8"
        ) from error


def sample_fields(files: SampleFiles) -> dict[str, Any]:
    """Return the fields of the .json beside an image, none where there is no such; UnusableError for no fields."""
    return _json_of(files) if files.sample.member(_FIELDS) is not None else {}


def _json_of(files: SampleFiles) -> dict[str, Any]:
    """Return the fields of the .json member; UnusableError where there are none."""
    return fields_in(files.bytes_of(_FIELDS), files.name_of(_FIELDS))


def fields_in(data: bytes, name: str) -> dict[str, Any]:
    """Return the fields of the bytes of a .json member; UnusableError where they are none."""
    text = _text_in(data, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{name} is no JSON ({error}): write it again") from error
    if not isinstance(content, dict):
        raise UnusableError(f"{name} has no fields, but is a {type(content).__name__}: write an object, {{...}}")
    return content


def _field(content: dict[str, Any], field: str, files: SampleFiles) -> Any:
    if field not in content:
        fields = ", ".join(map(repr, list(content)[:10])) or "none"
        raise UnusableError(f"{files.name_of(_FIELDS)} has no field {field!r}; it has {fields}")
    return content[field]


def _numbers(value: Any, field: str, files: SampleFiles) -> Row:
    """Return the number, or the list of them, in a field, (n,)."""
    try:
        values = np.asarray(value)
        if values.dtype.kind not in _NUMERIC:
            raise ValueError(f"it is {json.dumps(value)[:60]}")
    except (ValueError, OverflowError) as error:
        raise UnusableError(
            f"the field {field!r} of {files.name_of(_FIELDS)} is no number and no list of numbers ({error})"
        ) from error
    return _as_float32(values).ravel()


def _text(value: Any, field: str, files: SampleFiles) -> str:
    try:
        if isinstance(value, str):
            value.encode()
            return value
        why = f"it is {json.dumps(value)[:60]}"
    except UnicodeEncodeError as error:
        why = str(error)
    raise UnusableError(f"the field {field!r} of {files.name_of(_FIELDS)} is no text ({why})")


def _source_name(files: SampleFiles, source: str) -> str:
    kind, _, fields = source.partition(":")
    return f"{fields} of {files.name_of(kind)}" if fields else files.name_of(kind)


# -- before a training -----------------------------------------------------------------------------


def stored_files(shard: Shard, sample: Sample) -> SampleFiles:
    """Return a sample whose bytes are read from storage where they lie, a few at a time."""

    def read(offset: int, size_bytes: int) -> bytes:
        folder, name = split_object(shard.url)
        with folder.open(name) as file:
            file.seek(offset)
            return file.read(size_bytes)

    return SampleFiles(shard, sample, read)


def vector_length(shard: Shard, sample: Sample, source: str = _VECTORS) -> int | None:
    """Return how many numbers the vector of a sample has; None where it cannot be read."""
    try:
        return len(embedding_of(stored_files(shard, sample), source))
    except FreqganError:
        return None


def checked_members(members: Mapping[str, bytes], name: str, length: int | None) -> int | None:
    """Return the length of the vector among files beside an image, or ``length`` where there is none.

    Args:
        members: the files by extension.
        name: of the image without its extension, for errors.
        length: of the vectors beside other images; None for the first.

    Raises:
        UnusableError: a file that cannot be read, or a vector of another length.

    """
    for extension, data in members.items():
        file = f"{name}, .{extension}"
        if extension == _VECTORS:
            there = len(vector_in(data, file))
            if length is not None and there != length:
                raise UnusableError(f"{file} has {counted(there, 'number')}, and others have {length}: make them equal")
            length = there
        elif extension == _TEXTS:
            _text_in(data, file)
        else:
            fields_in(data, file)
    return length


def check_members(index: ShardSet, layout: TargetLayout, settings: ConditioningSettings) -> None:
    """Raise an error unless every image has what targets are read from.

    Raises:
        InputError: some have not, with their number and the first; the index is of a format that does not know; or
            vectors are of another length than ``conditioning.embedding_length``.

    """
    for extension in needed_members(layout, settings):
        _check_coverage(index, extension)
    if layout.embedding:
        _check_length(index, layout.embedding, settings.embedding)
    if layout.caption:
        _first_readable(index, "caption", settings.caption, caption_of)


def _check_coverage(index: ShardSet, extension: str) -> None:
    part = {_VECTORS: "embedding", _TEXTS: "caption"}.get(extension, f"a field of .{extension}")
    unaware = [shard.url for shard in index.shards if not shard.knows_members]
    if unaware:
        raise InputError(
            f"conditioning: {part} is in .{extension} beside the images, and the index of {unaware[0]} does not know "
            f"what lies there ({counted(len(unaware), 'shard')}): `freqgan shards index` writes it anew"
        )
    lacking = [(shard, sample) for shard, sample in _samples(index) if sample.member(extension) is None]
    if lacking:
        shard, sample = lacking[0]
        raise InputError(
            f"conditioning: {part} is in .{extension} beside the images, and {len(lacking)} of {index.sample_count} "
            f"images have none, the first is {sample.image_name} in {shard.url}; add what is missing, or leave "
            f"{'the field' if extension == _FIELDS else part} out of conditioning"
        )


def _first_readable(
    index: ShardSet, part: str, source: str, read: Callable[[SampleFiles, str], Found]
) -> tuple[str, Found] | None:
    """Return the first image's name, of a few, of which ``source`` can be read, and what it holds.

    None where all are damaged: that is met when they are trained on. InputError where the fields that ``source`` names
    are in none of them: a name is misspelt.
    """
    failures: list[FreqganError] = []
    for shard, sample in islice(_samples(index), _TRIED):
        try:
            return f"{sample.image_name} in {shard.url}", read(stored_files(shard, sample), source)
        except FreqganError as error:
            failures.append(error)
    if source.startswith(f"{_FIELDS}:") and all(isinstance(error, UnusableError) for error in failures):
        raise InputError(
            f"conditioning.{part}: {source} can be read of none of the first {counted(len(failures), 'image')}: "
            f"{first_line(failures[0])}; name fields that all of them have"
        )
    return None


def _check_length(index: ShardSet, length: int, source: str) -> None:
    """Compare with the first vector that can be read; others are looked at when they are trained on."""
    first = _first_readable(index, "embedding", source, embedding_of)
    if first is not None and len(first[1]) != length:
        raise InputError(
            f"conditioning.embedding_length: {length}, but the vector of {first[0]} has "
            f"{counted(len(first[1]), 'number')}; set conditioning.embedding_length={len(first[1])}"
        )


def _samples(index: ShardSet) -> Iterator[tuple[Shard, Sample]]:
    return ((shard, sample) for shard in index.shards for sample in shard.samples)


def member_fields(sample: Sample, extensions: Sequence[str]) -> str:
    """Return where those of ``extensions`` lie that ``sample`` has, for a fingerprint; "" where it has none."""
    members = (member for member in sample.members if member.extension in extensions)
    return "".join(f" {member.extension} {member.offset} {member.size_bytes}" for member in members)
