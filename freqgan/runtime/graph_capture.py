"""Computations that are recorded once and then replayed, where starting an operator takes longer than the operator.

A step of small networks is thousands of kernel launches on a GPU. A CUDA graph is all of them in one, and always the
same: it reads and writes the same memory, and every number that Python computed while it was recorded stays what it
was. What is recorded must therefore be a function of tensors, the weights of networks among them, and of nothing else
that changes from step to step; it may neither look at values nor move them between devices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from freqgan.errors import RunError

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP = 2
"""Calls of a kind that run as they are before one is recorded: libraries choose kernels and get workspace in them."""

KINDS = 6
"""Recordings that a function keeps, those used last. With every row that the schedule of teacher forcing takes from a
batch, one kind of call ends and another begins."""


class CapturedGraph(NamedTuple):
    """``outputs``, those that are tensors, are written anew by every ``replay``."""

    outputs: list[Any]
    replay: Callable[[], None]


class GraphCapture(Protocol):
    """Records on one device."""

    def record(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        """Records a call of ``function``, which has taken effect, once, when this returns."""


class CudaGraphs:
    """Records CUDA graphs. All of one recorder share their memory but for their outputs: they run one at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        """A graph, replayed once; RunError, with the remedy, where the call cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            raise RunError(f"cuda_graphs: a step cannot be recorded ({why}): set cuda_graphs=false") from error
        graph.replay()
        return CapturedGraph(outputs, graph.replay)


class CapturedFunction(Generic[P, R]):
    """``function``, recorded for each kind of call: arguments of other shapes, layouts or types are another kind.

    Args:
        function: of tensors in named tuples, dictionaries and lists, with None in the place of some, to such.
        recorder: of the device that the tensors are on.
        keep: whether results are to outlast the next call; if not, it overwrites them.

    Results have no history: gradients that are wanted are computed inside.

    """

    def __init__(self, function: Callable[P, R], recorder: GraphCapture, *, keep: bool = True) -> None:
        self._function, self._recorder, self._keep = function, recorder, keep
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function gives for these arguments."""
        leaves, structure = tree_flatten((args, kwargs))
        key = (structure, *map(_described, leaves))
        kind = self._kinds.setdefault(key, _Kind())
        self._kinds.move_to_end(key)
        while len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        if kind.calls < WARM_UP:
            kind.calls += 1
            return _without_history(self._function(*args, **kwargs))
        if kind.recording is None:
            self._record(kind, leaves, structure)
        else:
            with torch.no_grad():
                torch._foreach_copy_(kind.inputs, _tensors(leaves))
            kind.recording.replay()
        assert kind.recording is not None
        outputs = [_copied(x) if self._keep else x for x in kind.recording.outputs]
        return tree_unflatten(outputs, kind.structure)  # type: ignore[no-any-return]

    def _record(self, kind: _Kind, leaves: list[Any], structure: Any) -> None:
        held = list(map(_copied, leaves))
        kind.inputs = _tensors(held)

        def call() -> list[Any]:
            args, kwargs = tree_unflatten(held, structure)
            outputs, kind.structure = tree_flatten(_without_history(self._function(*args, **kwargs)))
            return outputs

        kind.recording = self._recorder.record(call)


class _Kind:
    """Of calls: how many there were, and how they are replayed."""

    def __init__(self) -> None:
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.structure: Any = None
        self.recording: CapturedGraph | None = None


def _described(leaf: Any) -> Any:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _tensors(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _without_history(result: R) -> R:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, result)  # type: ignore[no-any-return]
