"""Public docstrings begin with a sentence, and say the shapes of the tensors that a function takes and gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = sorted(path for layer in ("freqgan", "cluster", "launch") for path in (ROOT / layer).rglob("*.py"))
NO_SENTENCES = ("See ", "Of ", "That ", "Those ", "Its ", "Likewise")
"""How fragments begin that say less than the name of what they describe."""
ARRAYS = re.compile(r"\b(Tensor|NDArray|ndarray|SubImages)\b")
TUPLE = re.compile(r"\(([^()]*)\)")
SIDE = re.compile(r"\.\.\.|[A-Za-z0-9]'?( ?([-+*/]|>>) ?\w+'?)*")
"""A dimension: B, 3, N/2 + 1, C * bands, or the ... of any shape."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Documented(NamedTuple):
    """A public function, class or module: where it is, and its docstring."""

    place: str
    docstring: str
    node: ast.AST


def public(path: Path) -> Iterator[Documented]:
    """Everything public in a module, methods of public classes among it."""
    name = str(path.relative_to(ROOT))

    def visit(node: ast.Module | ast.ClassDef | Function, place: str) -> Iterator[Documented]:
        yield Documented(place, ast.get_docstring(node) or "", node)
        for child in node.body if not isinstance(node, Function) else ():
            if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
                yield from visit(child, f"{place}:{child.name}")

    return visit(ast.parse(path.read_text()), name)


def takes_or_gives_arrays(function: Function) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [function.returns]
    return any(annotation is not None and ARRAYS.search(ast.unparse(annotation)) for annotation in annotations)


def says_a_shape(docstring: str) -> bool:
    """Whether there is (B, C, h, h), (n,), (...) or "scalar" in it."""
    tuples = [[side.strip() for side in inner.split(",")] for inner in TUPLE.findall(docstring)]
    shapes = [sides for sides in tuples if sides == ["..."] or (len(sides) > 1 and any(map(SIDE.fullmatch, sides)))]
    return bool(shapes) or re.search(r"\bscalars?\b", docstring) is not None


def faults(path: Path) -> list[str]:
    """What is wrong in the public docstrings of a module."""
    wrong = []
    for place, docstring, node in public(path):
        first = docstring.partition("\n")[0]
        if not first.endswith((".", "?")) or first.startswith(NO_SENTENCES):
            wrong.append(f"{place}: the first line is no sentence: {first!r}")
        if isinstance(node, Function) and takes_or_gives_arrays(node) and not says_a_shape(docstring):
            wrong.append(f"{place}: takes or gives arrays and says no shape")
    return wrong


def test_docstrings_begin_with_a_sentence_and_say_shapes() -> None:
    assert len(CHECKED) > 100
    assert [fault for path in CHECKED for fault in faults(path)] == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""A module."""\ndef f(x: Tensor) -> int:\n    """Return its size."""\n', "says no shape"),
        ('"""A module."""\ndef f(x: int) -> "Tensor":\n    """Return f(x)."""\n', "says no shape"),
        ('"""A module."""\nclass A:\n    """Of b."""\n', "no sentence: 'Of b.'"),
        ('"""A module."""\ndef f() -> None:\n    """See :meth:`g`."""\n', "no sentence"),
        ('"""A module."""\ndef f() -> None:\n    """Return a\n    thing."""\n', "no sentence"),
        ('"""A module."""\ndef f() -> None: ...\n', "no sentence: ''"),
    ],
)
def test_the_check_sees_what_it_should(
    source: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_docstrings.ROOT", tmp_path)
    sample = tmp_path / "sample.py"
    sample.write_text(source)
    (message,) = faults(sample)
    assert fault in message
    sample.write_text('"""A module."""\ndef f(x: Tensor) -> int:\n    """Return the size of ``x`` (B, n)."""\n')
    assert faults(sample) == []
