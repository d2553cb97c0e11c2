"""Pages of HTML and Markdown: reports of runs, comparisons, summaries of retrainings; with curves and templates.

They are written from what is stored about a run, so each can be written anew at any time. No page is read by a program.
"""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""The files of pages that a server answers with, below /static."""
