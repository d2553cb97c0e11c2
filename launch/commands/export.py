"""``freqgan export``: a model in a folder that stands alone, for other people and other runtimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cluster.imaging.pictures import encode_png
from cluster.imaging.shown_images import shown_images
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import has_checkpoints
from cluster.run.trained_model import open_model
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError, counted
from freqgan.export.image_graph import ImageGraph
from freqgan.export.model_folder import TrainingRecord, pack_model
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from launch.commands.generate import GRID_SIDE
from launch.console.text import size_text
from launch.drawing.grids import tile
from launch.drawing.playing import animated_grid, middle_grid
from launch.pages.model_card import README, CardFacts, OnnxSummary, render_card
from launch.run_folder.evaluations import EVALUATIONS, parse_evaluations
from launch.run_folder.layout import CONFIG

SAMPLES, PLAYING = "samples.png", "samples.webp"
ONNX, PROGRAM = "model.onnx", "model.pt2"


class ExportRequest(NamedTuple):
    """What is to be exported, and how.

    Attributes:
        model: a run, a model that is retrained, or an exported folder.
        out: the folder or s3:// URL.
        onnx: writes a file of ONNX too, and checks it.
        program: writes a program of torch.export too.
        license: of the model, for its card.
        best: takes the best scored checkpoint.
        at_images: takes the newest checkpoint of at most so many images.
        generation: how flow experts generate from now on.

    """

    model: str
    out: str
    onnx: bool = False
    program: bool = False
    license: str = "other"
    best: bool = False
    at_images: int | None = None
    generation: GenerationOptions = AS_TRAINED


def export(request: ExportRequest, note: Callable[[str], None]) -> list[str]:
    """Write the folder of a model; return lines that say what is in it.

    Raises:
        InputError: no sound checkpoint, a folder that cannot be written or holds a run, packages that ONNX needs.
        RunError: the ONNX file makes other pixels.

    """
    if request.best and request.at_images is not None:
        raise InputError(f"--best and --at-images {request.at_images} name two checkpoints: leave one of them out")
    checkpoint, model = open_model(
        request.model, best=request.best, at_images=request.at_images, note=note, generation=request.generation.apply
    )
    model.feature_source = None  # another model's images do not come along: samples are those of the folder
    folder = open_folder(request.out)
    _check_target(folder, request)
    training = training_of(checkpoint)
    files = pack_model(model.settings, checkpoint.statistics(), checkpoint.averages(), training)
    summary = None
    if request.onnx:
        note("writing the graph of ONNX takes a minute")
        files[ONNX], summary = _onnx(model)
    if request.program:
        files[PROGRAM] = _program(model)
    files |= _samples(model)
    facts = CardFacts(
        folder=request.out.rstrip("/").rpartition("/")[2] or "model",
        license=request.license,
        settings=model.settings,
        training=training,
        scores=_scores(request.model, checkpoint),
        onnx=summary,
    )
    files[README] = render_card(facts).encode()
    for name, content in files.items():
        folder.write(name, content)
    lines = [f"{name:20} {size_text(len(content))}" for name, content in files.items()]
    return [*lines, *([summary.check] if summary else []), f"model of step {checkpoint.step} in {folder.url}"]


def _samples(model: Synthesiser) -> dict[str, bytes]:
    """Return the pictures of the card: of clips the frame in the middle, and an animation."""
    images = model.sample(0, BLOCK).images
    if model.settings.frames > 1:
        grid = encode_png(middle_grid(images, model.settings))
        return {SAMPLES: grid, PLAYING: animated_grid(images, model.settings)}
    pixels = shown_images(images, model.settings)
    return {SAMPLES: encode_png(tile(pixels, scale=max(1, GRID_SIDE // max(pixels.shape[-2:]))))}


def training_of(checkpoint: Checkpoint) -> TrainingRecord:
    """Return what the folder says of the training of ``checkpoint``."""
    return TrainingRecord(
        images=checkpoint.images,
        steps=checkpoint.stage_steps,
        data=str(checkpoint.manifest["data"].get("fingerprint", "")),
        classes=checkpoint.class_names,
        values=checkpoint.values,
    )


def _check_target(folder: Folder, request: ExportRequest) -> None:
    """Refuse to write into the folder that is read, or among the files of a training."""
    if open_folder(request.model).url == folder.url:
        raise InputError(f"--out {request.out} is the folder that is exported: name another one")
    if folder.exists(CONFIG) or has_checkpoints(request.out):
        raise InputError(f"--out {request.out} holds a run: name an empty folder")
    folder.check_writable()


def _onnx(model: Synthesiser) -> tuple[bytes, OnnxSummary]:
    """Return the file of ONNX and what the card says of it."""
    from freqgan.export.onnx_file import check_onnx, onnx_bytes

    content = onnx_bytes(model)
    check = check_onnx(content, model)
    text = (
        f"Compared with the model on {check.images} images of seed 0 (onnxruntime): pixels differ by at most "
        f"{counted(check.largest, 'step')}, {check.share:.2%} of them at all."
    )
    return content, OnnxSummary(ImageGraph(model).inputs, text)


def _program(model: Synthesiser) -> bytes:
    """Return a program of torch.export as the bytes of a file."""
    from io import BytesIO

    import torch

    from freqgan.export.onnx_file import traced

    buffer = BytesIO()
    torch.export.save(traced(ImageGraph(model).eval()), buffer)
    return buffer.getvalue()


def _scores(run: str, checkpoint: Checkpoint) -> dict[str, tuple[float, float]]:
    """Return what was measured of ``checkpoint`` and of real images while ``run`` was trained, if anything was."""
    folder = open_folder(run)
    if not folder.exists(EVALUATIONS):
        return {}
    own = [x for x in parse_evaluations(folder.read(EVALUATIONS).splitlines()) if x.step == checkpoint.step]
    pairs = {name: (score.get("value"), score.get("floor")) for name, score in own[-1].scores.items()} if own else {}
    return {name: (value, floor) for name, (value, floor) in pairs.items() if value is not None and floor is not None}
