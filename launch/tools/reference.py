"""``python -m launch.tools.reference [DIR]``: writes commands.md and settings.md from the code; DIR is docs by default.

The command line and the settings describe themselves; these pages are what they say, so the two cannot differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch.tools.commands_page import commands_page
from launch.tools.settings_page import settings_page


def main() -> None:
    """Writes both pages, in the folder of the first argument."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
        print(folder / name)


def pages() -> dict[str, str]:
    """Return the text of both pages by file name."""
    return {"commands.md": commands_page(), "settings.md": settings_page()}


if __name__ == "__main__":
    main()
