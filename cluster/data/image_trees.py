"""The files of a folder on a disk as they lie there, links followed; and which names are hidden."""

from __future__ import annotations

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from cluster.storage.errors import disk_reason
from freqgan.errors import RunError

Identity = tuple[int, int]


def is_hidden(name: str) -> bool:
    """Return whether ``name`` is that of a dot file, or of a resource fork that macOS adds to copies (AppleDouble)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


@dataclass
class Tree:
    """All that is below a folder; names are relative and use "/".

    Attributes:
        files: and what else is no folder, such as a pipe.
        folders: those below.
        broken: links that lead nowhere, and where they lead to.
        returning: links to a folder that is read anyway, or that this one lies in.

    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    returning: list[str] = field(default_factory=list)


def walk_tree(top: str) -> Tree:
    """Return what is below ``top``, an absolute path.

    A link to a folder elsewhere is read as a folder; of several links to one, each. It ends whatever leads where: a
    folder is read once on its own, and once for every link that stands in the folder itself.

    Raises:
        FreqganError: a folder that cannot be read.

    """
    tree = Tree()
    try:
        known = {_identity(path) for path in _above(os.path.realpath(top))}
        for link in _read(tree, top, [""], known, known):
            pending, seen = [link], set[Identity]()
            while pending:
                pending = _read(tree, top, pending, known, seen)
    except OSError as error:
        kind, reason = disk_reason(error) or (RunError, str(error))
        raise kind(f"cannot list {error.filename}: {reason}") from error
    tree.folders.remove("")
    return tree


def _above(path: str) -> Iterable[str]:
    while path != (path := os.path.dirname(path)):
        yield path


def _read(tree: Tree, top: str, pending: list[str], known: Set[Identity], seen: set[Identity]) -> list[str]:
    """Add all that is below the folders ``pending`` but not behind links; the links to folders, sorted.

    Folders that are in ``known`` or ``seen`` are not read; those that are read are put in ``seen``.
    """
    links: list[str] = []
    while pending:
        folder = pending.pop()
        identity = _identity(os.path.join(top, folder))
        if identity in known or identity in seen:
            tree.returning.append(folder)
            continue
        seen.add(identity)
        tree.folders.append(folder)
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                _sort_in(tree, entry, f"{folder}/{entry.name}" if folder else entry.name, pending, links)
    return sorted(links)


def _sort_in(tree: Tree, entry: os.DirEntry[str], name: str, folders: list[str], links: list[str]) -> None:
    is_link = entry.is_symlink()
    if is_link and not is_hidden(name) and not os.path.exists(entry.path):
        tree.broken[name] = os.readlink(entry.path)
    elif is_link and is_hidden(name):
        tree.files.append(name)
    elif entry.is_dir():
        (links if is_link else folders).append(name)
    else:
        tree.files.append(name)


def _identity(path: str) -> Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino
