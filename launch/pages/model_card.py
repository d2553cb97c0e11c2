"""The README of an exported model: what it is, how to use it, what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.imaging.image_writing import formats_of
from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import counted
from freqgan.export.image_graph import GraphInput
from freqgan.export.model_folder import TrainingRecord
from freqgan.model.settings import ModelSettings
from freqgan.targets import TargetLayout
from launch.console.text import planes_noun, values_text
from launch.settings.yaml_text import dump_yaml

README = "README.md"
FILES = {"png": "PNG files", "webp": "animated WebP files"}
"""What files of a format are called."""
EXAMPLES = {
    "label": 'inputs["label"] = np.zeros(8, np.int64)',
    "vector": 'inputs["vector"] = np.zeros((8, {length}), np.float32)',
    "features": 'inputs["features"] = rng.standard_normal((8, {length}), dtype=np.float32)',
    "caption": 'text = np.frombuffer(b"a text".ljust({length}, b"\\0"), np.uint8)\n'
    'inputs["caption"] = np.tile(text, (8, 1))',
    "members": 'inputs["members"] = np.zeros((8, {length}), np.int64)',
}


class OnnxSummary(NamedTuple):
    """What the card says of the file of ONNX.

    Attributes:
        inputs: of the graph, the noise first.
        check: a sentence on how it compares with the model.

    """

    inputs: list[GraphInput]
    check: str

    def values(self) -> dict[str, object]:
        """Return what the template shows."""
        first, *others = self.inputs
        lines = [EXAMPLES[each.name].format(length=each.length) for each in others]
        rows = [{"kind": str(each.dtype).removeprefix("torch."), **each._asdict()} for each in self.inputs]
        return {"length": first.length, "lines": lines, "inputs": rows, "check": self.check}


class CardFacts(NamedTuple):
    """What the card is written from.

    Attributes:
        folder: the name of the model's folder, and of the model.
        license: an identifier of SPDX, or "other".
        settings: of the model.
        training: what it was trained on.
        scores: of the checkpoint and of real images in its place, by metric; {} where it was not scored.
        onnx: of the file, if there is one.

    """

    folder: str
    license: str
    settings: ModelSettings
    training: TrainingRecord
    scores: Mapping[str, tuple[float, float]]
    onnx: OnnxSummary | None


def render_card(facts: CardFacts) -> str:
    """Return the card as Markdown with front matter."""
    environment = Environment(
        loader=PackageLoader("launch.pages"), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    settings = facts.settings
    pipeline, condition = _kind_tags(settings.target_layout)
    values = {
        "folder": facts.folder,
        "license": facts.license,
        "settings": settings,
        "pipeline": pipeline,
        "condition": condition,
        "kind": kind_text(settings),
        "noun": "image" if settings.frames == 1 else "clip" if settings.bit_depth == 8 else "volume",
        "made": made_text(settings),
        "shape": ", ".join(map(str, (8, settings.image_channels, *settings.size))),
        "order": order_text(settings),
        "files": FILES.get(formats_of(settings)[0], "arrays of NumPy (.npy)"),
        "saving": _saving_lines(settings),
        "training": facts.training,
        "steps": ", ".join(f"{name} {step:,}" for name, step in facts.training.steps.items()),
        "scores": dict(facts.scores),
        "onnx": facts.onnx and facts.onnx.values(),
        "yaml": dump_yaml(_own_settings(settings)),
    }
    return environment.get_template("model_card.md").render(values)


def _kind_tags(layout: TargetLayout) -> tuple[str, str]:
    """Return the task of a model hub and a tag on what the images depend on, each "" where there is none.

    Hubs have a task for models of text, and one for models of nothing, but none for those of classes.
    """
    if not layout:
        return "unconditional-image-generation", ""
    if layout.caption:
        return "text-to-image", ""
    return "", "class-conditional" if layout.classes else "conditional"


def made_text(settings: ModelSettings) -> str:
    """Return what the images are, in words, with their size as width x height."""
    size = f"{settings.size[1]} x {settings.size[0]} pixels"
    colour = {1: "in grey", 3: "in colour"}.get(settings.channels, f"with {settings.channels} channels")
    if settings.frames == 1:
        text = f"images of {size}, {colour}"
    else:
        noun = "clips" if settings.bit_depth == 8 else "volumes"
        text = f"{noun} of {settings.frames} {planes_noun(settings)} of {size}, {colour}"
    if settings.bit_depth == 8:
        return text
    return (
        f"{text}, with {values_text(settings)}" if settings.bit_depth == 16 else f"{text}, of {values_text(settings)}"
    )


def order_text(settings: ModelSettings) -> str:
    """Return a sentence on the order of channels of clips, and on the range of floats; "" where there is neither."""
    sentences = []
    if settings.frames > 1:
        nouns = planes_noun(settings)
        sentences.append(
            f"The channels of all {settings.frames} {nouns} follow each other, {nouns[:-1]} by {nouns[:-1]}."
        )
    if settings.value_range is not None and settings.bit_depth == FLOAT_BITS:
        least, greatest = settings.value_range
        sentences.append(f"-1 stands for the value {least:g} and 1 for {greatest:g}.")
    return " ".join(sentences)


def _saving_lines(settings: ModelSettings) -> list[str]:
    """Return the lines of Python that store ``pixels``, one image of the file of ONNX, as ``number``."""
    kind = formats_of(settings)[0]
    if kind == "png":
        return ['Image.fromarray(pixels.squeeze()).save(f"{number}.png")']
    if kind == "npy":
        return ['np.save(f"{number}.npy", pixels)']
    return [
        "first, *others = [Image.fromarray(frame.squeeze()) for frame in pixels]",
        'first.save(f"{number}.webp", save_all=True, append_images=others, duration=125, loop=0, lossless=True)',
    ]


def kind_text(settings: ModelSettings) -> str:
    """Return what the model consists of, in words."""
    gans = settings.band_plan().gans
    if settings.system == "fusion":
        return f"three generators trained jointly, of the image and of its bands ({settings.transform})"
    companion = f"a companion ({settings.image_stage.companion})" if settings.image_stage.enabled else ""
    if not gans:
        return f"one generator of whole images ({settings.image_stage.companion})"
    kinds = ", ".join(sorted({gan.kind for gan in gans}))
    levels = counted(settings.levels, "level")
    experts = f"{counted(len(gans), 'generator')} ({kinds}) of the bands of {settings.transform} in {levels}"
    return f"{experts}, blended with {companion}" if companion else experts


def _own_settings(settings: ModelSettings) -> dict[str, object]:
    """Return the settings that differ from their defaults."""
    values = settings.model_dump(mode="json", include=set(ModelSettings.model_fields))
    return _differing(values, ModelSettings().model_dump(mode="json"))


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``values`` differs from ``defaults``, group by group."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if inner := _differing(value, default):
                out[name] = inner
        elif value != default:
            out[name] = value
    return out
