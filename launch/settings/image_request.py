"""What ``freqgan generate`` is asked for, whichever way it makes the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from cluster.imaging.image_writing import SCAN_FORMATS, USUAL_FPS, check_format, image_files
from cluster.imaging.scan_writing import ScanWriter, read_reference, scan_writer, shape_note
from cluster.run.checkpoint import Checkpoint
from cluster.run.trained_model import open_model
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.generation.synthesiser import Synthesiser
from launch.settings.target_options import NO_TARGETS, TargetOptions


class OpenModel(NamedTuple):
    """A checkpoint, its model, the folder for the images, and what writes them as scans where they are to be such."""

    checkpoint: Checkpoint
    model: Synthesiser
    folder: Folder
    scans: ScanWriter | None = None


@dataclass(frozen=True)
class ImageRequest:
    """Which model is to make which images, and where they go.

    Attributes:
        run: the run folder of the model.
        out: the folder of the images.
        count: how many, where that is said.
        seed: of their noise.
        targets: what they are to show.
        truncation: is multiplied with their noise.
        generation: how flow experts generate.
        part: of the model whose images are wanted.
        best: takes the checkpoint that was scored best.
        at_images: takes the newest checkpoint of at most so many images.
        save_vectors: writes noise and targets beside the images.
        conditioning_run: the run whose images are shown, in place of the one in the settings.
        kind: of the files, by extension; "" for the usual one of the model.
        fps: frames a second of clips.
        reference: a file of NIfTI or DICOM whose place and spacing scans are to have; "" for none.
        one_file: writes a volume of DICOM as one file.

    """

    run: str
    out: str
    count: int | None = None
    seed: int = 0
    targets: TargetOptions = NO_TARGETS
    truncation: float = 1.0
    generation: GenerationOptions = AS_TRAINED
    part: str = "image"
    best: bool = False
    at_images: int | None = None
    save_vectors: bool = False
    conditioning_run: str | None = None
    kind: str = ""
    fps: float = USUAL_FPS
    reference: str = ""
    one_file: bool = False

    def open(self, note: Callable[[str], None]) -> OpenModel:
        """Return what it names; ``note`` is told of checkpoints passed over.

        Raises:
            InputError: no sound checkpoint, or two names of one; two sources of features; ``out`` cannot be written;
                options of flow experts for a model of GANs; files that cannot hold its images; a reference that cannot
                be read.

        """
        if self.best and self.at_images is not None:
            raise InputError(f"--best and --at-images {self.at_images} name two checkpoints: leave one of them out")
        if self.conditioning_run is not None and self.targets.like is not None:
            raise InputError(
                f"--conditioning-run {self.conditioning_run} and --like {self.targets.like}: either gives the features "
                "of all images; leave one of them out"
            )
        checkpoint, model = open_model(
            self.run, best=self.best, at_images=self.at_images, note=note, generation=self.generation.apply,
            base=self.conditioning_run,
        )  # fmt: skip
        if self.kind:
            check_format(self.kind, checkpoint.settings)
        if self.fps != USUAL_FPS and checkpoint.settings.frames == 1:
            raise InputError(f"--fps {self.fps:g}: the model makes images, no clips; leave it out")
        scans = self._scan_writer(checkpoint, note)
        folder = open_folder(self.out)
        folder.check_writable()
        return OpenModel(checkpoint, model, folder, scans)

    def _scan_writer(self, checkpoint: Checkpoint, note: Callable[[str], None]) -> ScanWriter | None:
        """Return what writes scans; None where other files are wanted. ``note`` is told of a reference's other shape.

        Raises InputError for options of scans beside other files.
        """
        if self.kind not in SCAN_FORMATS:
            for option, is_given in (("--reference", self.reference), ("--one-file", self.one_file)):
                if is_given:
                    raise InputError(f"{option} is for scans: give --format dicom or nifti, or leave it out")
            return None
        settings, reference = checkpoint.settings, None
        if self.reference:
            reference = read_reference(self.reference)
            if self.kind == "nifti" and (text := shape_note(reference, settings)):
                note(text)
        return scan_writer(
            self.kind, settings, checkpoint.values, checkpoint.averages_digest(), self.seed, reference=reference,
            in_one_file=self.one_file,
        )  # fmt: skip

    def write(self, opened: OpenModel, names: Sequence[str], images: Tensor) -> None:
        """Write ``images`` (B, C, N, N) in [-1, 1] of the model into the folder, as files of the kind asked for.

        Of scans ``names`` are their numbers.
        """
        if opened.scans is not None:
            for name, image in zip(names, images, strict=True):
                for file, data in opened.scans.files(name, image):
                    opened.folder.write(file, data)
            return
        files = image_files(images, opened.checkpoint.settings, self.kind, self.fps)
        for name, (extension, data) in zip(names, files, strict=True):
            opened.folder.write(f"{name}.{extension}", data)

    def refuse(self, way: str, *names: str) -> None:
        """Raise InputError where one of the options ``names`` is given that mean nothing beside ``way``."""
        defaults = ImageRequest(self.run, self.out)
        for name in names:
            if getattr(self, name) != getattr(defaults, name):
                option = "--" + name.replace("_", "-")
                raise InputError(f"{way} and {option}: {option} has no meaning beside it; leave it out")
