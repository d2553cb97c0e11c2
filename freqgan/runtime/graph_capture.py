"""Functions that are captured as a graph once and replayed, where to launch an operator takes longer than to run it.

A step of small networks is thousands of kernel launches on a GPU. A CUDA graph is all of them in one, and always the
same: it reads and writes the same memory, and every number that Python computed during the capture stays what it was.
A function that is captured must therefore depend on tensors, the weights of networks among them, and on nothing else
that changes from step to step; it may neither look at values nor move them between devices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from freqgan.errors import RunError, first_line

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP = 2
"""Calls with one signature that run eagerly before one is captured: in them libraries choose kernels and allocate
workspace."""

SIGNATURES = 6
"""Graphs that a function holds, those used last. With every row that the schedule of teacher forcing takes from a
batch, calls of one signature end and those of another begin."""


class CapturedGraph(NamedTuple):
    """A captured call: ``replay`` runs it again and writes ``outputs``, those that are tensors, anew."""

    outputs: list[Any]
    replay: Callable[[], None]


class GraphCapture(Protocol):
    """Captures calls on one device."""

    def graph(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        """Capture a call of ``function``, which has taken effect, once, when this returns."""


class CudaGraphs:
    """Captures CUDA graphs. All graphs of one object share memory but for their outputs: they run one at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def graph(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        """Return the graph of a call of ``function``, replayed once.

        Raises:
            RunError: the call cannot be captured; the message says what to set.

        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        except RuntimeError as error:
            why = first_line(error)
            raise RunError(f"cuda_graphs: a step cannot be recorded ({why}): set cuda_graphs=false") from error
        graph.replay()
        return CapturedGraph(outputs, graph.replay)


def capture_values(function: Callable[P, R], capture: GraphCapture | None) -> Callable[P, R]:
    """Return ``function`` itself without a ``capture``, else a function that replays it and returns values alone.

    Values alone have no history: who wants gradients has to compute them again, in a function of
    :func:`capture_gradients`. They outlast the next call.
    """
    return function if capture is None else CapturedFunction(torch.no_grad()(function), capture)


def capture_gradients(function: Callable[P, R], capture: GraphCapture | None) -> Callable[P, R]:
    """Return ``function``, which computes gradients, itself without a ``capture``, else a function that replays it.

    Every call of the replayed function overwrites what the one before returned.
    """
    return function if capture is None else CapturedFunction(function, capture, keep=False)


class CapturedFunction(Generic[P, R]):
    """``function`` with a graph for each signature: arguments of other shapes, layouts or types are another one.

    Args:
        function: takes and returns tensors in named tuples, dictionaries and lists, with None in the place of some.
        capture: captures on the device that the tensors are on.
        keep: whether results outlast the next call; if not, it overwrites them.

    Results have no history: gradients that are wanted are computed inside.

    """

    def __init__(self, function: Callable[P, R], capture: GraphCapture, *, keep: bool = True) -> None:
        self._function, self._capture, self._keep = function, capture, keep
        self._calls: OrderedDict[Any, _CallsOfSignature] = OrderedDict()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what the function returns for these arguments, tensors of any shapes."""
        leaves, structure = tree_flatten((args, kwargs))
        signature = (structure, *map(_leaf_signature, leaves))
        calls = self._calls.setdefault(signature, _CallsOfSignature())
        self._calls.move_to_end(signature)
        while len(self._calls) > SIGNATURES:
            self._calls.popitem(last=False)
        if calls.eager < WARM_UP:
            calls.eager += 1
            return _without_history(self._function(*args, **kwargs))
        if calls.graph is None:
            self._capture_call(calls, leaves, structure)
        else:
            with torch.no_grad():
                torch._foreach_copy_(calls.inputs, _tensors(leaves))
            calls.graph.replay()
        assert calls.graph is not None
        outputs = [_copy_of(leaf) if self._keep else leaf for leaf in calls.graph.outputs]
        return tree_unflatten(outputs, calls.structure)  # type: ignore[no-any-return]

    def _capture_call(self, calls: _CallsOfSignature, leaves: list[Any], structure: Any) -> None:
        own = list(map(_copy_of, leaves))  # the memory that every replay reads
        calls.inputs = _tensors(own)

        def call() -> list[Any]:
            args, kwargs = tree_unflatten(own, structure)
            outputs, calls.structure = tree_flatten(_without_history(self._function(*args, **kwargs)))
            return outputs

        calls.graph = self._capture.graph(call)


class _CallsOfSignature:
    """The calls of one signature: how many ran eagerly, and their graph with its inputs."""

    def __init__(self) -> None:
        self.eager = 0
        self.inputs: list[Tensor] = []
        self.structure: Any = None
        self.graph: CapturedGraph | None = None


def _leaf_signature(leaf: Any) -> Any:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _copy_of(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _tensors(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _without_history(result: R) -> R:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, result)  # type: ignore[no-any-return]
