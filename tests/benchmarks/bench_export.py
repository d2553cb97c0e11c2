"""Models as people take them away: one image beside the block that it was part of, onnxruntime beside torch, seconds
from a file to the first image, and sizes of files.

Models are those of presets with random weights: what they cost does not depend on training. ``first image`` starts a
process each time, as a reader of a model card does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from freqgan.export.image_graph import ImageGraph
from freqgan.export.model_folder import WEIGHTS, TrainingRecord, pack_model
from freqgan.export.onnx_file import onnx_bytes, targets_as_stored
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import stage_names
from freqgan.tensor_dicts import add_prefix
from launch.settings.load import load_settings
from tests.benchmarks.harness import Comparison, minima_s
from tests.support.synthesisers import untrained_model

PRESETS = ("demo", "cifar10")
BATCH = 8
EVALUATIONS = 4
"""Of flow experts: the graph has every pass in it."""
FIRST_IMAGE = "import sys, freqgan\nfreqgan.load_model(sys.argv[1]).sample(seed=0, count=1, whole_blocks=False)\n"
IMPORTS = "import torch\n"


def comparisons() -> Iterator[Comparison]:
    for preset in PRESETS:
        model = _model(preset)
        one_s, block_s = minima_s(
            [lambda model=model: model.draw(model.draws(0, 1)), lambda model=model: model.draw(model.draws(0, BLOCK))],  # type: ignore[misc]
            calls=3,
        )
        yield Comparison(
            f"{preset}: one image", one_s * 1e3, block_s * 1e3, "ms", False,
            f"ours: a pass of one image; peer: the pass of {BLOCK} that it is part of; minima",
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            yield from _files(preset, model, Path(folder))


def _model(preset: str) -> Synthesiser:
    settings = load_settings(preset, [])
    if any(gan.kind == "flow" for gan in settings.band_plan().gans):
        settings = settings.model_copy(
            update={"generation": settings.generation.model_copy(update={"evaluations": EVALUATIONS})}
        )
    return untrained_model(ModelSettings.model_validate(settings.model_dump(include=set(ModelSettings.model_fields))))


def _files(preset: str, model: Synthesiser, folder: Path) -> Iterator[Comparison]:
    content = onnx_bytes(model)
    session = onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
    graph = ImageGraph(model).eval()
    draws = model.draws(0, BATCH)
    arguments = graph.arguments(draws, targets_as_stored(model, draws.targets))
    feeds = {name: np.asarray(x) for name, x in zip([i.name for i in session.get_inputs()], arguments, strict=True)}

    def by_torch() -> None:
        with torch.no_grad():
            graph(*arguments)

    ours_s, peer_s = minima_s([lambda: session.run(None, feeds), by_torch], calls=3)
    yield Comparison(
        f"{preset}: an image by onnxruntime", ours_s / BATCH * 1e3, peer_s / BATCH * 1e3, "ms", False,
        f"ours: the ONNX file; peer: torch; batches of {BATCH}, one thread, minima",
    )  # fmt: skip
    files = _folder_files(model)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    weights = len(files[WEIGHTS])
    yield Comparison(
        f"{preset}: size of the ONNX file", len(content) / 2**20, weights / 2**20, "MiB", False,
        "ours: graph and weights; peer: the weights alone, safetensors",
    )  # fmt: skip
    ours_s, peer_s = minima_s([lambda: _run(FIRST_IMAGE, str(folder)), lambda: _run(IMPORTS)], rounds=2, calls=2)
    yield Comparison(
        f"{preset}: from a folder to an image", ours_s, peer_s, "s", False,
        "ours: a process that loads the folder and draws one; peer: one that imports torch; minima",
    )  # fmt: skip


def _folder_files(model: Synthesiser) -> dict[str, bytes]:
    parts = [part for part in (*model.generators, model.image) if part is not None]
    modules = dict(zip(stage_names(model.settings), parts, strict=True))
    averages = {name: add_prefix("average", dict(module.state_dict())) for name, module in modules.items()}
    training = TrainingRecord(images=0, steps=dict.fromkeys(modules, 0))
    return pack_model(model.settings, model.chain.statistics, averages, training)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def _run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
