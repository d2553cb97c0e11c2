"""``report.html``: one self-contained page that shows what a run has learnt, and its pictures in ``report/``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from cluster.data.quarantine import Quarantine, QuarantinedImage, reasons_text
from cluster.evaluation.background import Evaluation
from cluster.evaluation.held_out import with_features_of
from cluster.imaging.image_writing import USUAL_FPS
from cluster.imaging.pictures import encode_png
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoint_listing import best_checkpoint
from cluster.run.data_source import DataSource, open_source
from cluster.run.layout import CHECKPOINTS, COMPONENTS
from cluster.run.settings import RunSettings
from cluster.run.trained_model import open_model
from cluster.storage.folder import open_folder
from freqgan.bands import TIME_LOW, Band
from freqgan.errors import FreqganError
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from freqgan.generation.synthesiser import Synthesiser
from freqgan.metrics.catalogue import LEARNED, accuracy_sentences, is_accuracy
from freqgan.model.settings import ModelSettings
from launch.console.component_table import component_table
from launch.console.plan_table import plan_rows
from launch.console.text import duration_text, experts_text, form_text, pixels_text, planes_noun
from launch.drawing.figures import make_figures, shown_count
from launch.drawing.playing import encode_webp
from launch.pages.curves import (
    alpha_curve,
    companion_curves,
    flow_loss_curves,
    lambda_curve,
    loss_curves,
    score_curves,
    speed_curve,
    timeline,
)
from launch.pages.windowing import WindowedGrid, value_scale, windowed_grid
from launch.run_folder.failures import recovery_text
from launch.run_folder.logs import RunLogs, read_logs
from launch.run_folder.metrics import MetricsLine
from launch.settings.load import dump_settings

REPORT = "report.html"
PICTURES = "report"
SEED = 0


@dataclass(frozen=True)
class RealImages:
    """Stored images (B, C, N, N) with targets, (B,) or (B, K); or ``images`` None and why they are missing."""

    images: Tensor | None
    targets: Tensor | None
    missing: str = ""
    classes: tuple[str, ...] = ()
    """Names of the labels, where they are used and known."""


def write_report(
    run: str,
    *,
    note: Callable[[str], None],
    data: str | None = None,
    at_images: int | None = None,
    generation: GenerationOptions = AS_TRAINED,
) -> str:
    """Write the report of the newest sound checkpoint of ``run``; return where it is.

    Without its real images (moved, or no longer readable) a report shows the generated ones alone and says so,
    unless ``data`` names them: then they must be there. ``at_images`` asks for the newest checkpoint of at most so many
    images. ``generation`` is how flow experts generate.

    Raises:
        InputError: no sound checkpoint; ``data`` cannot be read; options of flow experts for a model of GANs.

    """
    checkpoint, synthesiser = open_model(run, at_images=at_images, note=note, generation=generation.apply)
    folder = open_folder(run)
    logs = read_logs(run)
    left_out = logs.left_out
    real = _real_images(checkpoint, data, left_out, note)
    if real.missing:
        note(f"the report shows no real images: {real.missing}")
    pictures, facts = _content(checkpoint, synthesiser, logs, real)
    facts["failures"] = [(recovery.step, recovery_text(recovery)) for recovery in logs.failures]
    facts["left_out"] = left_out
    facts["components"] = component_table(run)
    facts["best"] = best_checkpoint(folder.child(COMPONENTS if logs.is_free else CHECKPOINTS))
    uris: dict[str, str] = {}
    folder.child(PICTURES).delete_tree()  # a report of before may have had pictures that this one has not
    for name, picture in pictures.items():
        kind = "webp" if name in facts["playing"] else "png"
        encoded = encode_webp(picture) if kind == "webp" else encode_png(picture)
        folder.write(f"{PICTURES}/{name}.{kind}", encoded)
        uris[name] = f"data:image/{kind};base64," + base64.b64encode(encoded).decode()
    folder.write(REPORT, _template().render(pictures=uris, **facts).encode())
    return f"{folder.url}/{REPORT}"


def _content(
    checkpoint: Checkpoint,
    synthesiser: Synthesiser,
    logs: RunLogs,
    real: RealImages,
) -> tuple[dict[str, Image.Image], dict[str, Any]]:
    """Return the pictures by name and everything else that the page says."""
    settings = checkpoint.settings
    furthest = max(checkpoint.stage_steps.values())
    lines = [line for line in logs.lines if line.step <= furthest]
    # The generated image at each place has the target of the real one there.
    generated = synthesiser.sample(SEED, shown_count(settings), targets=real.targets)
    figures = make_figures(synthesiser, generated, real.images)
    pictures = figures.pictures | _curves(lines, logs, settings)
    evaluations = [evaluation for evaluation in logs.evaluations if evaluation.step <= checkpoint.step]
    if evaluations:
        pictures["curves-scores"] = score_curves(evaluations)
    facts: dict[str, Any] = {
        "settings": settings,
        "settings_yaml": dump_settings(settings),
        "step": checkpoint.step,
        "facts": _facts(checkpoint, [] if logs.is_free else lines, synthesiser),
        "alphas": synthesiser.alphas,
        "share": synthesiser.share,
        "missing": real.missing,
        "classes": list(enumerate(real.classes or checkpoint.class_names)),
        "form": form_text(settings),
        "planes": planes_noun(settings),
        "playing": {name: _playing(pictures[name], frames) for name, frames in figures.playing.items()},
        "frame_ms": round(1000 / USUAL_FPS),
        "windowed": _windowed(settings, generated.images, real.images),
        "scale": value_scale(settings)._asdict()
        | _fitted(settings, generated.images if real.images is None else real.images),
        "times": time_headings(settings),
        "sizes": {level: pixels_text(synthesiser.chain.band_size(level)) for level in range(1, settings.levels + 1)},
        "levels": _bands_by_level(figures.bands, settings),
        "fit": figures.fit,
        "rows": plan_rows(settings),
        "experts": _noun(settings),
        "has_flows": any(gan.kind == "flow" for gan in settings.band_plan().gans),
        "companion": settings.image_stage.companion,
        "has_tie": settings.image_stage.is_adversarial,
        "seconds": _seconds(lines),
        "evaluations": evaluations,
        "held_out": logs.held_out,
        "has_curves": bool(lines),
        "measured": _measured(evaluations),
        "accuracies": accuracy_sentences(evaluations[-1].scores) if evaluations else [],
        "relativistic": settings.loss.kind == "relativistic",
    }
    return pictures, facts


def _measured(evaluations: list[Evaluation]) -> list[tuple[str, dict[str, float | None]]]:
    """Return the learned distances of the last of ``evaluations`` by name, as {value, floor, ratio}."""
    scores = evaluations[-1].scores if evaluations else {}
    return [(name, score) for name, score in scores.items() if name.startswith(LEARNED) and not is_accuracy(name)]


def _curves(lines: list[MetricsLine], logs: RunLogs, settings: RunSettings) -> dict[str, Image.Image]:
    if not lines:
        return {}
    is_fusion = settings.system == "fusion"
    pictures = {
        "curves-losses": loss_curves(lines, settings.loss.kind == "relativistic"),
        "curves-flow": flow_loss_curves(lines, logs.held_out),
        "curves-companion": companion_curves(lines),
        "curves-alpha": alpha_curve(lines) if settings.image_stage.enabled and settings.band_plan().gans else None,
        "curves-lambda": lambda_curve(lines) if is_fusion else None,
        "curves-speed": None if logs.is_free else speed_curve(lines),
        "timeline": None if logs.is_free else timeline(lines),
    }
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _noun(settings: RunSettings) -> str:
    """Return what the page calls the experts."""
    kinds = {gan.kind for gan in settings.band_plan().gans}
    if len(kinds) > 1 or not (kinds or settings.image_stage.is_adversarial):
        return "experts"
    return {"gan": "GANs", "flow": "flow experts", "student": "students"}[next(iter(kinds), "gan")]


def _facts(checkpoint: Checkpoint, lines: list[MetricsLine], synthesiser: Synthesiser) -> list[tuple[str, str]]:
    """Return the key facts as (name, value)."""
    settings, alphas, share = checkpoint.settings, synthesiser.alphas, synthesiser.share
    wall_s = lines[-1].wall_s if lines else 0.0
    first, last = min(checkpoint.stage_steps.values()), max(checkpoint.stage_steps.values())
    apart = first != last  # stages at their own pace have come differently far
    facts = [
        ("images seen", f"{checkpoint.images:,}{f' to {last * settings.batch:,}' if apart else ''}"),
        ("step", f"{first:,} to {last:,}" if apart else f"{checkpoint.step:,} of {settings.last_step:,}"),
        ("images" if settings.frames == 1 else "clips" if settings.bit_depth == 8 else "volumes", form_text(settings)),
        ("experts of bands", experts_text(settings)),
        ("levels", f"{settings.levels}"),
        ("transform", settings.transform),
    ]
    if alphas and settings.image_stage.companion != "attention":
        facts.append(("companion", settings.image_stage.companion))
    if settings.band_plan().gans and alphas:
        facts.append(("alpha", _range_text(list(alphas.values()))))
    if share is not None:
        facts.append(("lambda", f"{share:.3f}"))
    if wall_s:
        facts += [("wall time", duration_text(wall_s)), ("images/s", f"{lines[-1].images / wall_s:.1f}")]
    return facts


def _range_text(weights: list[float]) -> str:
    return f"{weights[0]:.3f}" if len(weights) == 1 else f"{min(weights):.2f}-{max(weights):.2f}"


def _bands_by_level(bands: list[Band], settings: RunSettings) -> list[tuple[str, int, list[str]]]:
    """Return the bands of every temporal band and level, as (temporal band, level, names)."""
    parts = [(time, level) for time in settings.band_layout().times for level in range(settings.levels, 0, -1)]
    names = {(time, level): [str(b) for b in bands if (b.time, b.level) == (time, level)] for time, level in parts}
    return [(time, level, own) for (time, level), own in names.items() if own]


def _playing(picture: Image.Image, frames: int) -> tuple[int, int, int]:
    """Return frames, width and height of one of them, of a picture of frames below each other."""
    return frames, picture.width, picture.height // frames


def _windowed(settings: RunSettings, generated: Tensor, real: Tensor | None) -> dict[str, WindowedGrid]:
    """Return the values of the large grids by the names of their pictures, where pixels have more than 8 bits."""
    if settings.bit_depth == 8:
        return {}
    grids = {"images-generated": generated, "images-real": real}
    return {name: windowed_grid(images, settings) for name, images in grids.items() if images is not None}


def _fitted(settings: RunSettings, images: Tensor) -> dict[str, float]:
    """Return the ends of the window that fits ``images``, where there is one."""
    if settings.bit_depth == 8:
        return {}
    low, high = value_scale(settings).fitted(images, settings)
    return {"low": low, "high": high}


def time_headings(settings: ModelSettings) -> dict[str, str]:
    """Return what each temporal band of clips holds, in words; "" of images."""
    layout, planes = settings.band_layout(), planes_noun(settings)
    if settings.frames == 1:
        return {"": ""}
    depth = len(layout.times) - 1
    headings = {TIME_LOW: f"averages of {2**depth} {planes}" if depth else f"the {planes}"}
    for level in range(depth, 0, -1):
        pace = "" if depth == 1 else ": fast," if level == 1 else ": slow," if level == depth else ":"
        what = f"neighbouring {planes}" if level == 1 else f"averages of {2 ** (level - 1)} {planes}"
        headings[f"tH{level}"] = f"changes{pace} between {what}"
    return headings


def _seconds(lines: list[MetricsLine]) -> dict[str, float]:
    """Return the median seconds of a step by stage, over the last steps."""
    recent = lines[-100:]
    taken: dict[str, list[float]] = {name: [] for name in (recent[-1].stages if recent else {})}
    for line in recent:
        for name, numbers in line.stages.items():
            if "seconds" in numbers:  # of a stage at its own pace, which has not come so far, there are none
                taken[name].append(numbers["seconds"])
    return {name: float(torch.tensor(seconds or [0.0]).median()) for name, seconds in taken.items()}


def _real_images(
    checkpoint: Checkpoint, data: str | None, left_out: tuple[QuarantinedImage, ...], note: Callable[[str], None]
) -> RealImages:
    """Return the first images of the training order.

    Those ``left_out`` of the run and others that are damaged are not among them.
    """
    settings = checkpoint.settings
    read_settings = settings if data is None else settings.model_copy(update={"data": data})
    try:
        index = open_source(read_settings).index
        same = DataSource(read_settings, index).fingerprint() == checkpoint.manifest["data"]["fingerprint"]
        quarantine = Quarantine(None, index.sample_count, left_out if same else ())
        source = DataSource(read_settings, index, quarantine)
        with source.ingest(training=False) as ingest:
            batch = source.batch(ingest, 0, shown_count(settings))
    except FreqganError as error:
        if data is not None:
            raise
        return RealImages(None, None, str(error))
    if quarantine.unreported:
        note(
            f"the report leaves out {len(quarantine.unreported)} damaged images: {reasons_text(quarantine.unreported)}"
        )
    images, targets = torch.from_numpy(batch.images), None
    if settings.target_layout:
        mapping = checkpoint.statistics().feature_map
        targets = with_features_of(images, torch.from_numpy(batch.targets), settings, mapping)
    return RealImages(images, targets, classes=index.class_names if settings.classes else ())


def _template() -> Any:
    environment = Environment(loader=PackageLoader("launch.pages"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html")
