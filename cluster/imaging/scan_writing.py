"""Images and volumes of a model as scans: DICOM and NIfTI, with the values and the spacing of what it was trained on.

A model of 8 or 16 bits gives stored numbers, which mean what those of its shards mean. One of 32 bits gives values in
its ``value_range``, which become whole numbers of 16 bits, value = number * slope + offset: the offset is the least
value of the range, the slope the step between the values of the data (1 HU of a CT), or as much as the range needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from torch import Tensor

from cluster.formats.dicom import is_dicom, read_dicom
from cluster.formats.dicom_writing import NO_PATIENT, SYNTHETIC, Origin, write_dicom
from cluster.formats.dicom_writing import Pixels as Numbers
from cluster.formats.meaning import SLOPE, Meaning, step_of
from cluster.formats.nifti import is_nifti, read_nifti, write_nifti
from cluster.formats.scan import IDENTITY, Placement, Scale, Spacing
from cluster.imaging.image_writing import check_format, stored_arrays
from cluster.storage.folder import split_object
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError
from freqgan.model.settings import ModelSettings

HOUNSFIELD = "HU"
"""The unit of which a whole number is a step where the data do not say theirs."""
USUAL_SPACING: Spacing = (1.0, 1.0, 1.0)
_MOST = 65535
_DIGITS = 9
"""Of a slope that is chosen here: a DICOM file holds numbers of 16 characters."""


class ScanFile(NamedTuple):
    """The name of a file below the folder of all images, and its bytes."""

    name: str
    data: bytes


class Reference(NamedTuple):
    """Where the scan of a file lies.

    Attributes:
        spacing: mm between its slices, rows and columns; None where it does not say.
        placement: of a NIfTI file, in space.
        shape: slices, rows and columns.

    """

    spacing: Spacing | None
    placement: Placement | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ScanWriter:
    """How images of a model become files of scans.

    Attributes:
        kind: of the files.
        settings: of the model.
        meaning: of the numbers that are written.
        run_digest: of the model, for identifiers.
        seed: of the images.
        placement: of NIfTI files, in space.
        in_one_file: whether a volume is one file of DICOM, and not one for every slice.

    """

    kind: Literal["dicom", "nifti"]
    settings: ModelSettings
    meaning: Meaning
    run_digest: str
    seed: int
    placement: Placement | None = None
    in_one_file: bool = False

    def files(self, name: str, image: Tensor) -> list[ScanFile]:
        """Return the files of an ``image`` (T C, H, W) in [-1, 1] that is called ``name``, its number in digits.

        Of DICOM they are ``name.dcm``, or of a volume one for every slice in a folder ``name``; of NIfTI
        ``name.nii.gz``.

        Raises:
            InputError: the library for the format is missing, or the scale has more digits than DICOM allows.

        """
        pixels = self.numbers(image)
        if self.kind == "nifti":
            values = self.meaning.scale.values(pixels)
            text = f"{SYNTHETIC}: {NO_PATIENT}"
            return [ScanFile(f"{name}.nii.gz", write_nifti(values, self.placement, self.meaning.spacing, text))]
        content = hashlib.sha256(repr((pixels.shape, self.meaning)).encode() + pixels.tobytes()).hexdigest()
        origin = Origin(self.run_digest, self.seed, int(name), content)
        files = write_dicom(pixels, origin, self.meaning, in_one_file=self.in_one_file)
        if len(files) == 1:
            return [ScanFile(f"{name}.dcm", files[0])]
        digits = max(3, len(str(len(files))))
        return [ScanFile(f"{name}/{number:0{digits}d}.dcm", data) for number, data in enumerate(files, 1)]

    def numbers(self, image: Tensor) -> Numbers:
        """Return the whole numbers that are written of an ``image`` (T C, H, W): (T, H, W), in colour (T, H, W, 3)."""
        (array,) = stored_arrays(image[None], self.settings)
        frames = array if self.settings.frames > 1 else array[None]
        if self.settings.channels == 1:
            frames = frames[..., 0]
        if self.settings.bit_depth != FLOAT_BITS:
            return cast(Numbers, np.ascontiguousarray(frames))
        offset, slope = float(self.meaning.scale.offset), float(self.meaning.scale.slope)
        steps = ((frames.astype(np.float64) - offset) / slope).round()
        return np.ascontiguousarray(steps.clip(0, _MOST).astype(np.uint16))


def scan_writer(
    kind: str,
    settings: ModelSettings,
    values: Mapping[str, Any],
    run_digest: str,
    seed: int,
    *,
    reference: Reference | None = None,
    in_one_file: bool = False,
) -> ScanWriter:
    """Return how images of a model become scans.

    Args:
        kind: dicom or nifti.
        settings: of the model.
        values: what stored numbers mean, as its run has them.
        run_digest: of the model, for identifiers.
        seed: of the images.
        reference: gives spacing and place; without it the spacing is that of ``values``, or 1 mm.
        in_one_file: of DICOM, writes a volume as one file of many frames.

    Raises:
        InputError: images of the model are no scans, ``values`` are damaged, or ``in_one_file`` with NIfTI.

    """
    check_format(kind, settings)
    if in_one_file and kind != "dicom":
        raise InputError(f"--one-file with --format {kind}: a volume is always one file there; leave it out")
    meaning = meaning_of(settings, values)
    spacing = reference.spacing if reference is not None and reference.spacing is not None else meaning.spacing
    return ScanWriter(
        "dicom" if kind == "dicom" else "nifti",
        settings,
        replace(meaning, spacing=spacing or USUAL_SPACING),
        run_digest,
        seed,
        None if reference is None else reference.placement,
        in_one_file,
    )


def meaning_of(settings: ModelSettings, values: Mapping[str, Any]) -> Meaning:
    """Return what the numbers that are written of a model's images mean; ``values`` are those of its run.

    Raises:
        InputError: ``values`` are damaged.

    """
    name = "what the run says of its values"
    meaning = Meaning.of(values, name)
    if settings.bit_depth == FLOAT_BITS:
        return replace(meaning, scale=_quantised(settings, meaning, step_of(values, name)))
    if settings.channels > 1:
        return replace(meaning, scale=IDENTITY, unit="")
    return meaning if SLOPE in values else replace(meaning, unit="")


def _quantised(settings: ModelSettings, meaning: Meaning, step: Fraction | None) -> Scale:
    """Return the scale by which the values of the model's range become whole numbers from 0 to 65535."""
    least, greatest = settings.value_ends
    width = Fraction(repr(greatest)) - Fraction(repr(least))
    if step is None and meaning.unit == HOUNSFIELD:
        step = Fraction(1)
    if step is None or width / step > _MOST:
        step = _rounded_up(width / _MOST)
    return Scale(step, Fraction(repr(least)))


def _rounded_up(number: Fraction) -> Fraction:
    """Return the least decimal of few digits that is not below ``number``."""
    context = Context(prec=_DIGITS, rounding=ROUND_CEILING)
    return Fraction(context.divide(Decimal(number.numerator), Decimal(number.denominator)))


# -- the scan that images are to lie like ----------------------------------------------------------


def read_reference(url: str) -> Reference:
    """Return where the scan in a file of NIfTI or DICOM lies; ``url`` is a path or s3:// URL.

    Raises:
        InputError: it is not there, damaged, or of neither format.

    """
    folder, name = split_object(url)
    if not folder.exists(name):
        raise InputError(f"--reference {url}: there is no such file; name one of NIfTI or DICOM")
    data = folder.read(name)
    if is_nifti(name):
        (scan,) = read_nifti(data, url)
    elif is_dicom(data):
        scan = read_dicom(data, url, allow_burned_in=True)
    else:
        raise InputError(f"--reference {url} is neither a NIfTI file (.nii, .nii.gz) nor one of DICOM: name one")
    return Reference(scan.spacing, scan.placement, scan.stored.shape[:3])


def shape_note(reference: Reference, settings: ModelSettings) -> str:
    """Return a note where the reference has another shape than images of the model; "" where it has the same."""
    own = (settings.frames, *settings.size)
    if reference.placement is None or tuple(reference.shape) == own:
        return ""
    there, here = (" x ".join(map(str, shape)) for shape in (reference.shape, own))
    return (
        f"--reference: its volume is {there} voxels (slices x rows x columns), and those of the model are {here}: they "
        "have its affine and zooms, and so begin at its first voxel and end elsewhere"
    )
