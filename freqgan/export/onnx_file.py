"""A model as a file of ONNX, and the proof that it makes the same pixels.

Images are put together by products with the matrices of the transform: the runtime needs no operators of its own.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.bit_depth import FLOAT_BITS
from freqgan.errors import InputError, RunError
from freqgan.export.image_graph import ImageGraph
from freqgan.generation.synthesiser import Synthesiser
from freqgan.transforms.banks import merge_by, split_by
from freqgan.transforms.operators import bank_named
from freqgan.transforms.protocol import Quad

OUTPUT = "images"
OPSET = 18
CHECKED = 4
"""Images by which a file is compared with the model."""
MOST_DIFFERENCE = 1
"""Steps of 255 by which a pixel may differ: sums are rounded in another order."""
INSTALL = "pip install 'freqgan[onnx]'"


class OnnxCheck(NamedTuple):
    """How the pixels of a file compare with the model's.

    Attributes:
        images: that were compared.
        largest: difference of a pixel, in steps of the bit depth.
        share: of the pixels that differ.

    """

    images: int
    largest: int
    share: float


def onnx_bytes(model: Synthesiser) -> bytes:
    """Return ``model`` as the bytes of an ONNX file: the inputs of :class:`ImageGraph` -> "images" (B, N, N, C).

    The size of the batch is free. What the settings of generation say, such as the number of passes, is in the graph.

    Raises:
        InputError: a package is not installed, or the model has an operation that ONNX does not have.

    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"an ONNX file needs more packages ({error}): {INSTALL}") from error
    graph = ImageGraph(model).eval()
    with _quiet():
        program = traced(graph)
    try:
        with torch.no_grad(), _quiet():
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, output_names=[OUTPUT], input_names=_names(graph),
                custom_translation_table=_translations(), verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"this model cannot be written as ONNX: {reason}; export it without --onnx") from error
    assert exported is not None
    proto = exported.model_proto
    _clear_origins(proto.graph)
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch says of packages that are not there, and of its own future."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _clear_origins(graph: Any) -> None:
    """Leave out where in the source every node came from: it is many times as long as the graph, and names paths."""
    for part in (graph, *graph.value_info, *graph.initializer, *graph.node, *graph.input, *graph.output):
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clear_origins(attribute.g)


def traced(graph: ImageGraph) -> torch.export.ExportedProgram:
    """Return ``graph`` as a program of torch.export whose batch is of any size."""
    first, *others = (each.zeros(CHECKED) + each.dtype.is_floating_point for each in graph.inputs)
    if first.dtype.is_floating_point:
        first = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    batch = {0: torch.export.Dim.DYNAMIC}
    shapes = (batch, tuple(batch for _ in others)) if others else (batch,)
    with torch.no_grad():
        graph(first, *others)  # so that what is computed once and remembered is no part of the trace
        return torch.export.export(graph, (first, *others), dynamic_shapes=shapes)


def check_onnx(content: bytes, model: Synthesiser) -> OnnxCheck:
    """Compare the pixels of the first images of seed 0 that onnxruntime makes with those of ``model``.

    Raises:
        InputError: onnxruntime is not installed.
        RunError: a pixel differs by more than one step of 255.

    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"an ONNX file is checked by onnxruntime ({error}): {INSTALL}") from error
    graph = ImageGraph(model).eval()
    draws = model.block_draws(0, 0).rows(slice(CHECKED))
    arguments = graph.arguments(draws, targets_as_stored(model, draws.targets))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, dict(zip(_names(graph), (x.numpy() for x in arguments), strict=True)))
    with torch.no_grad():
        ours = graph(*arguments).numpy()
    difference = _difference(theirs, ours, model)
    steps = 1 if model.settings.bit_depth == 8 else 257
    check = OnnxCheck(len(ours), int(difference.max()), float((difference > 0).mean()))
    if check.largest > MOST_DIFFERENCE * steps:
        raise RunError(
            f"the ONNX file makes other pixels than the model: up to {check.largest} steps of {255 * steps} apart, "
            f"and at most {MOST_DIFFERENCE * steps} can come from rounding"
        )
    return check


def _difference(theirs: NDArray[Any], ours: NDArray[Any], model: Synthesiser) -> NDArray[np.int64]:
    """Return how far pixels are apart: whole steps, of floating-point ones 65535 to the model's range."""
    apart = np.abs(theirs.astype(np.float64) - ours.astype(np.float64))
    if model.settings.bit_depth == FLOAT_BITS:
        least, greatest = model.settings.value_ends
        apart = apart * (65535 / (greatest - least))
    return apart.round().astype(np.int64)


def targets_as_stored(model: Synthesiser, targets: Tensor | None) -> Tensor | None:
    """Return ``targets`` of draws, (B,) or (B, K), as the shards have them; networks see an embedding normalised."""
    return None if targets is None else model.chain.stored_targets(targets)


def _names(graph: ImageGraph) -> list[str]:
    return [each.name for each in graph.inputs]


# -- the transform's operators ----------------------------------------------------------------------


def _translations() -> dict[Any, Callable[..., Any]]:
    ours, primitive = torch.ops.freqgan, torch.ops.prims
    return {
        ours.merge_levels.default: _merge,
        ours.split_levels.default: _split,
        primitive.signbit.default: _is_negative,  # of asinh
        torch.ops.aten.linalg_solve_triangular.default: _solve_triangular,
    }


def _is_negative(x: Any) -> Any:
    from onnxscript import opset18 as op

    return op.Less(x, _constant(np.zeros((), np.float32)))


def _solve_triangular(matrix: Any, right: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """Translate a triangular system A x = b, of the inverse of 1x1 convolutions.

    A = D (1 - N) with N strictly triangular, so that A^-1 = (1 + N) (1 + N^2) (1 + N^4) ... D^-1 ends.
    """
    from onnxscript import opset18 as op

    if not left:
        raise NotImplementedError("systems x A = b are not translated")
    side = int(matrix.shape[-1])
    one = _constant(np.eye(side, dtype=np.float32))
    ones = _constant(np.ones((side, 1), np.float32))
    diagonal = ones if unitriangular else op.MatMul(op.Mul(matrix, one), ones)
    power = op.Sub(one, op.Div(matrix, diagonal))
    inverse = op.Add(one, power)
    for _ in range(1, math.ceil(math.log2(side)) if side > 1 else 1):
        power = op.MatMul(power, power)
        inverse = op.MatMul(inverse, op.Add(one, power))
    return op.MatMul(inverse, op.Div(right, diagonal))


def _merge(parts: Sequence[Any], present: Sequence[bool], bank: str) -> Any:
    """Translate the inverse transform of all levels."""
    from onnxscript import opset18 as op

    known = iter(parts)

    def merge(quad: Quad) -> Any:
        height, width = (int(side) for side in quad.hl.shape[-2:])
        along_y, along_x = _channels(bank, 2 * height), _channels(bank, 2 * width)
        low, high = (
            op.Add(op.MatMul(first, _constant(along_x[0])), op.MatMul(second, _constant(along_x[1])))
            for first, second in ((quad.ll, quad.hl), (quad.lh, quad.hh))
        )
        return op.Add(op.MatMul(_constant(along_y[0].T), low), op.MatMul(_constant(along_y[1].T), high))

    given = [next(known) if is_present else None for is_present in present]
    return merge_by(merge, given)


def _split(image: Any, levels: int, bank: str) -> list[Any]:
    """Translate the transform of all levels."""
    from onnxscript import opset18 as op

    def split(x: Any) -> Quad:
        height, width = (int(side) for side in x.shape[-2:])
        along_y, along_x = _channels(bank, height), _channels(bank, width)
        rows = [op.MatMul(_constant(channel), x) for channel in along_y]
        return Quad(*(op.MatMul(row, _constant(channel.T)) for row in rows for channel in along_x))

    return split_by(split, image, levels)


def _channels(bank: str, side: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return [channel.numpy().astype(np.float32) for channel in bank_named(bank).channels(side)]


def _constant(matrix: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    import onnx
    from onnxscript import opset18 as op

    return op.Constant(value=onnx.numpy_helper.from_array(np.ascontiguousarray(matrix)))
