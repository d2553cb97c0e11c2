"""The folder of this user for what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.storage.folder import Folder, open_folder


def user_cache(name: str) -> Folder:
    """Return the folder ``name`` of this program in the user's cache (XDG); it need not exist, nor be writable."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return open_folder(f"{base}/freqgan/{name}")
