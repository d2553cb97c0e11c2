"""YAML as settings and policies are written: text to values, values to text, and faults with their line.

Scalars are those of YAML 1.2's core schema: `no`, `1:30`, `010` and `2024-01-01` are text, where YAML 1.1, which PyYAML
reads, silently makes False, 90, 8 and a date of them; `1e-4` is a number. Underscores between digits stay allowed.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from cluster.storage.folder import split_object
from freqgan.errors import InputError

_TAG = "tag:yaml.org,2002:"
_MERGE, _TEMPLATE = f"{_TAG}merge", "!template"
_DIGITS, _EXPONENT = r"[0-9](?:_?[0-9])*", r"[eE][-+]?[0-9]+"
_NUMBER_BEGINS = list("-+.0123456789")
_SCALARS: dict[str, tuple[str, list[str] | None]] = {
    f"{_TAG}null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    f"{_TAG}bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    f"{_TAG}int": (r"[-+]?(?:0|[1-9](?:_?[0-9])*)|0o[0-7]+|0x[0-9a-fA-F]+", _NUMBER_BEGINS),
    f"{_TAG}float": (
        rf"[-+]?(?:(?:(?:{_DIGITS})?\.{_DIGITS}|{_DIGITS}\.)(?:{_EXPONENT})?|{_DIGITS}{_EXPONENT}|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        _NUMBER_BEGINS,
    ),
    _MERGE: (r"<<", ["<"]),
    _TEMPLATE: (r".*(?:\{\{[^{}]*\}\}|\{%.*%\}).*", None),  # of Jinja and Helm, left in a word
}
_WANT_QUOTES = ("alias", "anchor", "alphabetic", "cannot start any token", "not allowed here")
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_FILL_IN = "it looks like a template that was not filled in: fill it in, or put it in quotes if it is meant so"


def read_text(source: str) -> str:
    """Return the text of a file, a path or an s3:// URL; InputError where there is none, or it is not UTF-8."""
    folder, name = split_object(source)
    try:
        return folder.read(name).decode("utf-8-sig")  # Windows puts a mark before it
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is no text file in UTF-8 ({error.reason} at byte {error.start}); give YAML, saved as UTF-8"
        ) from error


def parse_yaml(text: str, wrong: str) -> Any:
    """Return the value that ``text`` stands for.

    Raises:
        InputError: "<wrong>: <what> (line, column); <remedy>" where it is no YAML.

    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{wrong}: {_problem(error, text)}") from error
    except RecursionError as error:
        raise InputError(f"{wrong}: it is nested too deep") from error


def dump_yaml(values: Any) -> str:
    """Return ``values``, in their order, as text that :func:`parse_yaml`, and YAML 1.1, read back to equals."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently take the last, and keys that are no words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping as the base class does, and check it."""
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a key must be a word", key)
            value = key.value if key.tag == _MERGE else self.construct_object(key)
            if value in seen or str(value) in seen:
                raise _fault(f"{key.value!r} is given twice", key)
            seen |= {value, str(value)}
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number written in decimals, or as 0x1f or 0o17."""
        try:
            return int(str(self.construct_scalar(node)), 0)
        except ValueError as error:
            raise _fault(f"{node.value[:20]!r} is no whole number, or one of too many digits", node) from error

    def number(self, node: yaml.ScalarNode) -> float:
        """Return a decimal fraction, or .inf or .nan."""
        text = str(self.construct_scalar(node)).lower()
        try:
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError as error:
            raise _fault(f"{node.value[:20]!r} is no number", node) from error

    def truth(self, node: yaml.ScalarNode) -> bool:
        """Return true or false."""
        text = str(self.construct_scalar(node)).lower()
        if text not in ("true", "false"):
            raise _fault(f"{node.value[:20]!r} is neither true nor false", node)
        return text == "true"

    def template(self, node: yaml.ScalarNode) -> str:
        """Nothing that somebody means."""
        raise _fault(f"{node.value[:60]!r} holds braces", node)


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that would be read as anything else, by this program or by YAML 1.1."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Return the text with the rarer ends of lines escaped, which PyYAML otherwise reads back as blanks."""
        return self.represent_scalar(f"{_TAG}str", value, style='"' if _LINE_ENDS.search(value) else None)


_Loader.yaml_implicit_resolvers = {}
_CORE = [None, *(f"{_TAG}{kind}" for kind in ("null", "str", "seq", "map"))]
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _CORE}
_Loader.add_constructor(f"{_TAG}int", _Loader.whole_number)
_Loader.add_constructor(f"{_TAG}float", _Loader.number)
_Loader.add_constructor(f"{_TAG}bool", _Loader.truth)
_Loader.add_constructor(_TEMPLATE, _Loader.template)
_Dumper.add_representer(str, _Dumper.text)
for _tag, (_pattern, _begins) in _SCALARS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _begins)


def _fault(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _problem(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"the character #x{error.character:04x} cannot stand in YAML (line {line})"
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or mark is None:
        return str(error)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1}){_remedy(problem, text, mark.line)}"


def _remedy(problem: str, text: str, line: int) -> str:
    """Return what to do about it, where that can be told."""
    if "\\t" in problem:
        return "; indent with spaces, not with tabs"
    lines = text.splitlines()[max(0, line - 1) : line + 1]  # a fault is often noticed on the line after
    if any("{{" in line or "{%" in line for line in lines):
        return f"; {_FILL_IN}"
    special = any(word in problem for word in _WANT_QUOTES)
    return "; put a value with special characters in quotes" if special else ""
