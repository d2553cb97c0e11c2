"""Where one result goes: tried before anything that takes time."""

from __future__ import annotations

import os

from cluster.storage.folder import Folder, split_object
from freqgan.errors import InputError

LONGEST_NAME_BYTES = 240
"""A file system takes 255, and a file has a longer name while it is written."""


def writable_object(option: str, url: str) -> tuple[Folder, str]:
    """Return the folder and the name of the file ``url``, a path or s3:// URL, that ``option`` names.

    Raises:
        InputError: it is a folder, its name is too long, or its folder cannot be written.

    """
    folder, name = split_object(url)
    if url.endswith("/") or (folder.is_local and os.path.isdir(f"{folder.url}/{name}")):
        raise InputError(f"{option} {url} is a folder: name a file in it")
    if len(name.encode()) > LONGEST_NAME_BYTES:
        raise InputError(
            f"{option}: the name of the file has {len(name.encode())} bytes, and {LONGEST_NAME_BYTES} are the most; "
            "give a shorter one"
        )
    folder.check_writable()
    return folder, name
