"""Pages of HTML and Markdown, with their curves and templates. They are written from what is stored about a run."""
