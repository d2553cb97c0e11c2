"""What killed writers have left in the folder of a run: temporary files on a disk, uploads in parts in a bucket."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from cluster.storage.folder import Folder
from freqgan.errors import FreqganError

OLD_S = 3600.0
"""A file that has not grown, or an upload that began, so long ago is nobody's any more."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
"""What is written before it gets its name, see :mod:`cluster.storage.folder`; no lock, which must stay."""


def remove_leftovers(folder: Folder) -> None:
    """Remove them from ``folder`` and all below; of those that cannot be removed somebody else may know why."""
    if not folder.is_local:
        with suppress(FreqganError):
            folder.abort_uploads(OLD_S)
        return
    before_s = time.time() - OLD_S
    for path, _, names in os.walk(folder.url):
        for name in filter(_TEMPORARY.fullmatch, names):
            with suppress(OSError):
                if os.stat(file := os.path.join(path, name)).st_mtime < before_s:
                    os.unlink(file)
